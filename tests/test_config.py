"""`audiovae.config`: what a file may say, and what the error says when it may not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from audiovae import config, config_base, config_vae
from audiovae.config import ModelConfig, load_config, parse_config
from audiovae.errors import AudioVAEError, ConfigError

WriteConfig = Callable[[str, str], Path]

LEVEL = "[[vae.levels]]\nstride = 2\ngroups = 1\nchannels = 4\n"


@pytest.fixture
def write_config(tmp_path: Path) -> WriteConfig:
    """Write `text` to a named file of one temporary folder."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problem_of(path: Path) -> str:
    """Message of the error that loading `path` must raise: one line that names the file."""
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


def test_empty_file_is_the_defaults(write_config: WriteConfig) -> None:
    assert load_config(write_config("empty.toml", "")) == ModelConfig()


def test_every_key_is_explained() -> None:
    """`configs/base.toml` and docs/train.md send their readers to the fields."""
    silent = [
        f"{table.__name__}.{name}"
        for module in (config, config_base, config_vae)
        for table in vars(module).values()
        if isinstance(table, type) and issubclass(table, config_base.Config)
        for name, field in table.model_fields.items()
        if not field.description and not isinstance(field.default, config_base.Config)
    ]
    assert silent == []


def test_a_path_may_be_a_string(write_config: WriteConfig) -> None:
    assert load_config(str(write_config("a.toml", 'name = "a"'))).name == "a"


def test_values_replace_defaults_and_leave_their_neighbours(write_config: WriteConfig) -> None:
    config = load_config(write_config("a.toml", "[vae]\nwidth = 64"))
    assert config.vae.width == 64
    assert config.vae.expansion == ModelConfig().vae.expansion


@pytest.mark.parametrize("text", ["5e-4", "0.0005", "5E-4"])
def test_floats_in_scientific_notation_are_numbers(write_config: WriteConfig, text: str) -> None:
    config = load_config(write_config("a.toml", f"[training]\nlearning_rate = {text}"))
    assert config.training.learning_rate == pytest.approx(5e-4, rel=0)


def test_extends_merges_table_by_table(write_config: WriteConfig) -> None:
    write_config(
        "base.toml", 'name = "base"\n[vae]\nwidth = 64\nexpansion = 2\n[training]\nseed = 7'
    )
    path = write_config("family/wide.toml", 'extends = "../base.toml"\n[vae]\nwidth = 128')
    config = load_config(path)
    assert config.vae.width == 128
    assert config.vae.expansion == 2
    assert config.training.seed == 7
    assert config.name == "base"


def test_extends_through_two_files(write_config: WriteConfig) -> None:
    write_config("base.toml", 'name = "base"\n[training]\nseed = 7\nsteps = 10')
    write_config("middle.toml", 'extends = "base.toml"\nname = "middle"\n[training]\nsteps = 20')
    config = load_config(write_config("top.toml", 'extends = "middle.toml"\n[training]\nseed = 9'))
    assert (config.name, config.training.steps, config.training.seed) == ("middle", 20, 9)


def test_a_list_of_tables_is_replaced_whole(write_config: WriteConfig) -> None:
    write_config("base.toml", LEVEL * 3)
    config = load_config(write_config("one.toml", 'extends = "base.toml"\n' + LEVEL))
    assert [level.stride for level in config.vae.levels] == [2]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_circle_is_refused(write_config: WriteConfig, length: int) -> None:
    paths = [
        write_config(f"{index}.toml", f'extends = "{(index + 1) % length}.toml"')
        for index in range(length)
    ]
    assert "circle" in problem_of(paths[0])


def test_two_ways_to_one_parent_are_no_circle(write_config: WriteConfig) -> None:
    write_config("base.toml", "[training]\nseed = 7")
    for name in ("left", "right"):
        path = write_config(f"{name}.toml", 'extends = "base.toml"')
        assert load_config(path).training.seed == 7


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ('nmae = "x"', "nmae", "name"),
        ("[vaee]\nwidth = 64", "vaee", "vae"),
        ("[training]\nlearning_rte = 5e-4", "training.learning_rte", "learning_rate"),
        ("[quality]\nmin_lamda = 1.0", "quality.min_lamda", "min_lambda"),
        (f"{LEVEL}encoder_bloks = 1", "vae.levels.0.encoder_bloks", "encoder_blocks"),
        (LEVEL.replace("channels", "chanels"), "vae.levels.0.chanels", "channels"),
    ],
    ids=["top", "table", "nested", "optional-table", "inside-levels", "required-inside-levels"],
)
def test_unknown_key_names_the_nearest(
    write_config: WriteConfig, text: str, key: str, nearest: str
) -> None:
    message = problem_of(write_config("a.toml", text))
    assert "unknown key" in message
    assert key in message
    assert f"'{nearest}'" in message


def test_unknown_key_without_a_neighbour_lists_the_known(write_config: WriteConfig) -> None:
    message = problem_of(write_config("a.toml", "[bottleneck]\nzzzzzz = 1"))
    assert "bottleneck.zzzzzz" in message
    assert "known keys" in message
    assert "min_scale" in message


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("name = 3", "name"),
        ('[vae]\nwidth = "wide"', "vae.width"),
        ("[vae]\nwidth = 64.5", "vae.width"),
        ("vae = 3", "vae"),
        ("[training]\nlearning_rate = -1.0", "training.learning_rate"),
        ('kind = "gan"', "kind"),
        ("[[vae.levels]]\nstride = 2\ngroups = 0\nchannels = 4", "vae.levels.0.groups"),
        ("[[vae.levels]]\nstride = 2", "vae.levels.0.groups"),
        ("[quality]\nmin_lambda = 8.0\nmax_lambda = 4.0", "quality"),
    ],
)
def test_wrong_type_or_value_names_its_key(write_config: WriteConfig, text: str, key: str) -> None:
    assert f"{key}: " in problem_of(write_config("a.toml", text))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[training]\nbatch_size = true", "training.batch_size"),
        ("[training]\nseed = false", "training.seed"),
        ("[training]\nlearning_rate = true", "training.learning_rate"),
        ("[vae]\nkernel_size = true", "vae.kernel_size"),
        ("[vae]\ndilations = [true]", "vae.dilations"),
        ("quality = true", "quality"),
    ],
)
def test_true_is_no_number(write_config: WriteConfig, text: str, key: str) -> None:
    assert f"{key}: must not be true or false" in problem_of(write_config("a.toml", text))


def test_true_and_false_are_themselves(write_config: WriteConfig) -> None:
    path = write_config("a.toml", "quality = false\n[training]\ncompile = false")
    config = load_config(path)
    assert (config.quality, config.training.compile) == (None, False)


@pytest.mark.parametrize("text", ["vae = 1", "quality = 1", "vae.levels = [1]"])
def test_what_should_be_a_table_is_told_so(write_config: WriteConfig, text: str) -> None:
    message = problem_of(write_config("a.toml", text))
    assert "must be a table of settings, got 1" in message
    assert "Config" not in message


def test_missing_file(tmp_path: Path) -> None:
    message = problem_of(tmp_path / "nothing.toml")
    assert "configs/" in message


def test_missing_parent_is_named(write_config: WriteConfig) -> None:
    path = write_config("a.toml", 'extends = "nothing.toml"')
    with pytest.raises(ConfigError, match=r"nothing\.toml"):
        load_config(path)


def test_a_folder_is_no_config(tmp_path: Path) -> None:
    problem_of(tmp_path)


@pytest.mark.parametrize("content", [b"[vae\nwidth = 1", b"width = ", b"\xff\xfe\x00binary"])
def test_syntax_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    assert "syntax error" in problem_of(path)


@pytest.mark.parametrize("value", ["3", '["base.toml"]', "true"])
def test_extends_must_name_one_file(write_config: WriteConfig, value: str) -> None:
    problem_of(write_config("a.toml", f"extends = {value}"))


def test_parse_config_names_its_source() -> None:
    with pytest.raises(ConfigError, match=r"^checkpoint x: unknown key 'nmae'"):
        parse_config({"nmae": 1}, source="checkpoint x")


def test_config_error_is_caught_as_ours_and_as_value_error() -> None:
    assert issubclass(ConfigError, AudioVAEError)
    assert issubclass(ConfigError, ValueError)


def test_a_config_survives_its_own_dump() -> None:
    config = ModelConfig(name="x")
    assert parse_config(config.model_dump(mode="json")) == config


def test_derived_values() -> None:
    config = ModelConfig()
    assert config.spectrogram.num_bins == 1025
    assert config.spectrogram.frames_per_second == pytest.approx(86.1328125)
    assert config.spectrogram.log_floor == pytest.approx(-11.512925464970229)
    assert config.vae.total_stride == 64
