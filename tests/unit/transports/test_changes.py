from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.errors import InvalidValue
from pyengine.oci.image import ContainerConfig, encode
from pyengine.transports.changes import apply_changes


def changed(*changes: str, legacy: bool = False) -> bytes:
    return encode(apply_changes(ContainerConfig(), changes, legacy=legacy))


@pytest.mark.parametrize(
    ("change", "document"),
    [
        ("USER bob", b'{"User":"bob"}'),
        ("user=bob", b'{"User":"bob"}'),
        ("EXPOSE 80 53/udp", b'{"ExposedPorts":{"80/tcp":{},"53/udp":{}}}'),
        ('ENV A="b c"', b'{"Env":["A=b c"]}'),
        ("ENV A b c", b'{"Env":["A=b c"]}'),
        ("ENV=A=b=c", b'{"Env":["A=b=c"]}'),
        ('CMD ["/bin/sh", "-c"]', b'{"Cmd":["/bin/sh","-c"]}'),
        ("CMD echo hi", b'{"Cmd":["/bin/sh","-c","echo hi"]}'),
        ('ENTRYPOINT ["x"]', b'{"Entrypoint":["x"]}'),
        ('VOLUME ["/a b"]', b'{"Volumes":{"/a b":{}}}'),
        ("VOLUME /a /b", b'{"Volumes":{"/a":{},"/b":{}}}'),
        ("WORKDIR x", b'{"WorkingDir":"/x"}'),
        ("LABEL a=b", b'{"Labels":{"a":"b"}}'),
        ("STOPSIGNAL SIGINT", b'{"StopSignal":"SIGINT"}'),
        ("ONBUILD RUN x", b'{"OnBuild":["RUN x"]}'),
    ],
)
def test_an_instruction_changes_the_configuration(change: str, document: bytes) -> None:
    assert changed(change) == document


def test_instructions_add_up() -> None:
    assert changed("ENV A=1", "ENV B=2", "ENV A=3") == b'{"Env":["B=2","A=3"]}'
    assert changed("WORKDIR /a", "WORKDIR b") == b'{"WorkingDir":"/a/b"}'
    assert changed("CMD a", "CMD b") == b'{"Cmd":["/bin/sh","-c","b"]}'


@pytest.mark.parametrize(
    "change", ["", "CMD", "nonsense", "RUN x", "EXPOSE x", "LABEL a", "ENV =b", "=x", "MAINTAINER me"]
)
def test_what_is_no_instruction_is_an_error(change: str) -> None:
    with pytest.raises(InvalidValue, match=r"is malformed|is not a port|not one of those"):
        changed(change)


@pytest.mark.parametrize(
    ("changes", "document"),
    [
        (["CMD [/bin/sh,-c]"], b'{"Cmd":["/bin/sh","-c"]}'),
        (['CMD ["/bin/sh"]'], b'{"Cmd":["\\"/bin/sh\\""]}'),
        (["CMD=a", "CMD=b"], b'{"Cmd":["a","b"]}'),
        (["ENV=K=V"], b'{"Env":["K=V"]}'),
        (["LABEL=a=b"], b'{"Labels":{"a":"b"}}'),
        (["LABEL a=b"], b'{"Labels":{"a=b":""}}'),
        (["cmd=x", "MAINTAINER me"], b"{}"),
        (["EXPOSE 80", "VOLUME=/v", "USER=u", "WORKDIR=/w", "STOPSIGNAL=9"],
         b'{"User":"u","ExposedPorts":{"80":{}},"Volumes":{"/v":{}},"WorkingDir":"/w","StopSignal":"9"}'),
    ],
)  # fmt: skip
def test_the_grammar_of_1_6_1_is_kept_for_its_clients(changes: list[str], document: bytes) -> None:
    assert changed(*changes, legacy=True) == document


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("x", "invalid format x"),
        ("CMD /bin/sh -c x", "invalid value /bin/sh -c x"),
        ("CMD=", "invalid value "),
        ("ENV K=V", 'no value given for environment variable "K=V"'),
    ],
)
def test_the_grammar_of_1_6_1_fails_as_it_did(change: str, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        changed(change, legacy=True)
    assert str(caught.value) == message


@given(st.text(max_size=30), st.booleans())
def test_any_text_is_an_instruction_or_an_error(change: str, legacy: bool) -> None:
    for text in (change, f"ENV {change}", f"CMD {change}", f"LABEL={change}"):
        try:
            changed(text, legacy=legacy)
        except InvalidValue:
            pass
