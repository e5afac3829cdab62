"""A Redis in memory: as much of one as the cache speaks to, with the cache's own Lua, behind sockets in memory or a real port."""
