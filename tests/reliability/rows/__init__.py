"""The rows: what each fault is, and how often it befalls the fleet. It owns no judgement."""
