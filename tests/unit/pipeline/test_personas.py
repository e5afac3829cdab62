"""A persona is a file: what the packaged ones say, what a new one adds, what a wrong one is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from catalogue import FOLDER, FOUR, NAMES

from pipeline.errors import ConfigurationError, InvalidRequestError
from pipeline.models import INTENTS, PACES, TONES
from pipeline.personas import PersonaInfo, catalog_from, load_catalog
from pipeline.settings import load_settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the frozen personas that a test may edit."""
    for file in FOLDER.glob("*.toml"):
        shutil.copy(file, tmp_path)
    return tmp_path


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {file.name}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_catalog(folder)
    return str(caught.value)


def test_the_packaged_personas_come_in_the_order_that_breaks_ties() -> None:
    """Lua, Elro, Riri, Nana: the promise of routing on a tie."""
    packaged = [persona for persona in load_catalog() if persona.name in NAMES]
    assert [persona.name for persona in packaged] == list(NAMES)
    assert [persona.slug for persona in packaged] == ["lua", "elro", "riri", "nana"]


def test_a_persona_has_an_affinity_for_every_word() -> None:
    """No key may find a persona without a figure."""
    for persona in load_catalog():
        assert len(persona.affinities.tone) == len(TONES)
        assert len(persona.affinities.pace) == len(PACES)
        assert len(persona.affinities.intent) == len(INTENTS)


def test_the_english_prompts_are_short_enough_for_a_small_model() -> None:
    """Up to 90 words each, the Korean ones up to 260 characters; those of the first four say enough, too."""
    for persona in load_catalog():
        words, characters = len(persona.info.prompts.en.split()), len(persona.info.prompts.ko)
        assert words <= 90, persona.name
        assert characters <= 260, persona.name
        if persona.name in NAMES:
            assert words >= 60, persona.name
            assert characters >= 120, persona.name
        assert persona.name in persona.info.prompts.en
        assert persona.name in persona.info.prompts.ko


def test_an_info_survives_the_cache_unchanged_and_cannot_be_changed() -> None:
    """What JSON carries comes back equal and hashable, hence without a list or dict anywhere: a copy can be shared."""
    for persona in load_catalog():
        again = msgspec.json.decode(msgspec.json.encode(persona.info), type=PersonaInfo)
        assert again == persona.info
        assert hash(again) == hash(persona.info)
        assert hash(persona) == hash(persona)
        with pytest.raises(AttributeError):
            again.name = "Other"  # type: ignore[misc] # on purpose


@pytest.mark.parametrize("spelling", ["riri", "Riri", "RIRI", " riri "])
def test_a_persona_is_found_by_slug_and_by_name(spelling: str) -> None:
    """Case and outer space do not count."""
    assert load_catalog().get(spelling).name == "Riri"


def test_an_unknown_persona_is_refused_with_those_there_are() -> None:
    """The message names the request and what is allowed."""
    with pytest.raises(InvalidRequestError, match=r"^persona: unknown persona 'zoe'; known are Lua, Elro, Riri, Nana$"):
        FOUR.get("zoe")


def test_a_persona_is_added_by_adding_a_file(folder: Path) -> None:
    """No other place lists the names."""
    shutil.copy(folder / "lua.toml", folder / "zoe.toml")
    edit(folder / "zoe.toml", 'name = "Lua"\norder = 1', 'name = "Zoe"\norder = 3000')
    (folder / ".lua.toml").write_text("what an editor left", encoding="utf-8")
    (folder / "notes.txt").write_text("not a persona", encoding="utf-8")
    assert [persona.name for persona in load_catalog(folder)] == [*NAMES, "Zoe"]


def test_one_persona_is_a_catalog(folder: Path) -> None:
    """Nothing depends on there being four."""
    for file in folder.glob("*.toml"):
        if file.name != "nana.toml":
            file.unlink()
    assert [persona.name for persona in load_catalog(folder)] == ["Nana"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("frustrated = 0.4", "frustrated = 0.41"),
        ("precise", "exact"),
        ("You are Elro,", "You are Elro:"),
        ("order = 2", "order = 5"),
    ],
)
def test_an_edited_persona_has_another_version_and_the_others_keep_theirs(folder: Path, old: str, new: str) -> None:
    """The version is a part of cache keys: an edit of anything must change it, and of nothing else."""
    before = {persona.slug: persona.info.version for persona in load_catalog(folder)}
    file = folder / "elro.toml"
    file.write_text(file.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    after = {persona.slug: persona.info.version for persona in load_catalog(folder)}
    assert [slug for slug in before if before[slug] != after[slug]] == ["elro"]


@pytest.mark.parametrize("change", ["add", "edit", "remove"])
def test_a_catalog_with_other_personas_has_another_version(folder: Path, change: str) -> None:
    """A routing weighs all personas: it holds for that very catalog only."""
    assert load_catalog(folder).version == FOUR.version
    if change == "add":
        shutil.copy(folder / "lua.toml", folder / "zoe.toml")
        edit(folder / "zoe.toml", 'name = "Lua"\norder = 1', 'name = "Zoe"\norder = 5')
    elif change == "edit":
        edit(folder / "elro.toml", "frustrated = 0.4", "frustrated = 0.5")
    else:
        (folder / "elro.toml").unlink()
    assert load_catalog(folder).version != FOUR.version


def test_a_comment_does_not_change_the_version(folder: Path) -> None:
    """The version is that of the content, so that a comment costs no cache."""
    file = folder / "elro.toml"
    file.write_text("# a remark\n\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
    assert load_catalog(folder).get("elro") == FOUR.get("elro")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("order = 2\n", "", "order: missing; needed are name, order,"),
        ("order = 2", 'order = 2\nmood = "dry"', "mood: unknown field; allowed are name, order,"),
        ("order = 2", 'order = "2"', "order: '2'; expected a whole number from 1 to 9999"),
        ("order = 2", "order = 2.0", "order: 2.0; expected a whole number"),
        ("order = 2", "order = true", "order: True; expected a whole number"),
        ("order = 2", "order = 0", "order: 0; expected a whole number from 1 to 9999"),
        ("order = 2", "order = 1", "order: 1 is taken by "),
        ('name = "Elro"', 'name = "Lua"', "name: 'Lua'; expected 'elro' in any case of letters"),
        ('name = "Elro"', "name = 5", "name: 5; expected text"),
        ('name = "Elro"', 'name = " "', "name: ' '; expected text that is not empty"),
        ('name = "Elro"', 'name = "El\\nro"', "expected one line"),
        ('traits = ["logical"', 'traits = [7, "logical"', "traits[0]: 7; expected text"),
        ('traits = ["logical"', 'traits = ["precise", "logical"', "traits[4]: 'precise' is listed twice"),
        ("[affinity.tone]", "[affinity.tone]\nbored = 0.1", "affinity.tone.bored: unknown field; allowed are frus"),
        ("urgent = 0.8\n", "", "affinity.tone.urgent: missing; needed are frustrated"),
        ("burst = 0.4", "burst = 1.01", "affinity.pace.burst: 1.01; expected a number from 0.0 to 1.0"),
        ("burst = 0.4", "burst = -0.1", "affinity.pace.burst: -0.1; expected a number from 0.0 to 1.0"),
        ("burst = 0.4", "burst = nan", "affinity.pace.burst: nan; expected a number from 0.0 to 1.0"),
        ("burst = 0.4", "burst = true", "affinity.pace.burst: True; expected a number from 0.0 to 1.0"),
        ("burst = 0.4", 'burst = "high"', "affinity.pace.burst: 'high'; expected a number from 0.0 to 1.0"),
        ("[summary]", "[summary]\nfr = 'Un architecte.'", "summary.fr: unknown field; allowed are en, ko"),
        ("[prompt]\nen", "[prompt]\nenglish", "prompt.english: unknown field; allowed are en, ko"),
        ("order = 2", "order = ", "is not TOML: "),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_file_field_value_and_what_is_allowed(folder: Path, old: str, new: str, said: str) -> None:
    """The author of the file can mend it from the message alone."""
    edit(folder / "elro.toml", old, new)
    if "order = 1" in new:  # files are read in the order of their names, and the later one is to blame
        assert f"{folder / 'lua.toml'}: order: 1 is taken by elro.toml" in refusal(folder)
    else:
        message = refusal(folder)
        assert message.startswith(f"{folder / 'elro.toml'}: ")
        assert said in message


def test_a_table_that_is_none_is_refused(folder: Path) -> None:
    """A text where a table belongs is told what the table holds."""
    text = (folder / "elro.toml").read_text(encoding="utf-8")
    start, end = text.index("[summary]"), text.index("[prompt]")
    (folder / "elro.toml").write_text('summary = "An architect."\n' + text[:start] + text[end:], encoding="utf-8")
    assert "summary: 'An architect.'; expected a table with en, ko" in refusal(folder)


@pytest.mark.parametrize("stem", ["Elro", "2elro", "el-ro", "él"])
def test_a_file_name_that_is_no_slug_is_refused(folder: Path, stem: str) -> None:
    """The slug stands in cache keys, where `:`, `*` and capitals mean something."""
    (folder / "elro.toml").rename(folder / f"{stem}.toml")
    message = refusal(folder)
    assert f"{stem}.toml: slug: '{stem}', from the file's name; expected a lower-case letter" in message


def test_a_file_that_is_not_utf8_is_refused(folder: Path) -> None:
    """Korean text saved in an older encoding is the likely case."""
    (folder / "elro.toml").write_bytes('name = "엘로"'.encode("euc-kr"))
    assert "elro.toml: is not UTF-8 at byte 8" in refusal(folder)


def test_a_folder_without_personas_is_refused(tmp_path: Path) -> None:
    """Both an empty folder and one that is not there name the folder."""
    assert refusal(tmp_path) == f"{tmp_path}: no persona; expected at least one .toml file"
    assert refusal(tmp_path / "gone").startswith(f"{tmp_path / 'gone'}: cannot be read: ")


# -- a folder of the user's


def test_the_personas_of_a_folder_come_in_the_place_of_the_packages(folder: Path) -> None:
    """They replace them: a folder with one persona is a catalogue of one."""
    for file in folder.glob("*.toml"):
        if file.name != "lua.toml":
            file.unlink()
    catalog = catalog_from(load_settings({"PERSONA_PERSONAS_DIR": str(folder)}))
    assert [persona.name for persona in catalog] == ["Lua"]
    assert catalog.version != catalog_from(load_settings({})).version
    assert catalog_from(load_settings({})) == load_catalog()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "nothing", "cannot be read: No such file or directory; expected a folder"),
        (lambda folder: folder / "lua.toml", "cannot be read: Not a directory; expected a folder"),
        (lambda folder: folder / "empty", "no persona; expected at least one .toml file"),
    ],
)
def test_a_folder_that_is_none_is_refused_by_the_variable(make: Callable[[Path], Path], said: str, folder: Path) -> None:
    """The message names the variable, its value and what is expected."""
    (folder / "empty").mkdir()
    wrong = make(folder)
    with pytest.raises(ConfigurationError) as caught:
        catalog_from(load_settings({"PERSONA_PERSONAS_DIR": str(wrong)}))
    assert str(caught.value) == f"PERSONA_PERSONAS_DIR: {wrong}: {said}"


def test_a_wrong_file_of_the_folder_is_named_with_the_variable(folder: Path) -> None:
    """Which of several folders it is in, which file, which field."""
    edit(folder / "lua.toml", "order = 1", "order = 0")
    with pytest.raises(ConfigurationError) as caught:
        catalog_from(load_settings({"PERSONA_PERSONAS_DIR": str(folder)}))
    assert str(caught.value).startswith(f"PERSONA_PERSONAS_DIR: {folder / 'lua.toml'}: order: 0; expected a whole number")
