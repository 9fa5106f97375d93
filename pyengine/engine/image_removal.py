"""What `rmi` does with a name: untag or delete. Source: images.md §4.8 of the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyengine.errors import InUse, InvalidValue
from pyengine.oci.reference import Reference
from pyengine.store.images import Image

if TYPE_CHECKING:
    from pyengine.engine.engine import Engine


def best_match(text: str, names: tuple[str, ...]) -> str:
    """The one name that `text` means: itself, else the one that agrees in most of registry, name and tag.

    Raises `InvalidValue` when none agrees, or several do equally.
    """
    if text in names:
        return text
    wanted = Reference.parse(text)
    scores: dict[str, int] = {}
    for name in names:
        known = Reference.parse(name)
        same_name = known.repository == wanted.repository
        same_name |= known.repository.rsplit("/", 1)[-1] == wanted.repository.rsplit("/", 1)[-1]
        scores[name] = (known.registry == wanted.registry) + same_name + (known.tag == wanted.tag)
    best = max(scores.values(), default=0)
    chosen = [name for name, score in scores.items() if score == best]
    if best == 0:
        raise InvalidValue("unable to match user input to any specific repotag")
    if len(chosen) > 1:
        raise InvalidValue("user input matched multiple repotags for the image")
    return chosen[0]


def remove_by_rules(engine: Engine, text: str, force: bool) -> list[str]:
    """Untag or delete what `text` means; the lines that say what was done."""
    image = engine.store.images.find(text)
    by_id = image.id.startswith(text)
    if len(image.names) <= 1:
        _free(engine, image, force)
    if len(image.names) > 1 and not by_id:
        name = best_match(text, image.names)
        engine.store.images.untag(image.id, name)
        return [f"Untagged: {name}"]
    if len(image.names) > 1 and not force:
        raise InUse(f"unable to delete {image.id} (must force) - it has several names: {', '.join(image.names)}")
    if force:
        _free(engine, image, force)
    engine.storage.remove_image(image.id)
    return [*(f"Untagged: {name}" for name in image.names), f"Deleted: {image.id}"]


def _free(engine: Engine, image: Image, force: bool) -> None:
    """No container may use the image: with `force` they are removed."""
    from pyengine.engine.config import ContainerConfig
    from pyengine.engine.lifecycle import remove

    users = engine.store.images.containers_of(image.id)
    if users and not force:
        raise InUse(
            f"could not remove image {image.id} as it is being used by {len(users)} containers: remove "
            f"{', '.join(id[:12] for id in users[:5])}{' …' if len(users) > 5 else ''} first, or use force"
        )
    for id in users:
        remove(engine, ContainerConfig.decode(engine.store.containers.get(id).config), force=True)
