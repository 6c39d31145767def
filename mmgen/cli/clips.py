"""What `mmgen sample` is told of clips: whether one is drawn, how long, from what, how it plays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.errors import UserError
from mmgen.files import FPS, PICTURE_FORMATS, is_picture_file

if TYPE_CHECKING:
    from mmgen.beginnings import Beginning
    from mmgen.pipeline import Pipeline


@dataclass(frozen=True)
class ClipOptions:
    """The options of clips; each of them asks for a clip, as `--video` alone does.

    Args:
        video: `--video`.
        frames: `--frames`, given ones included.
        fps, loop: how the file plays.
        images: pictures to animate.
        clips: files to go on from, from their last `given` frames.
        given: `--given`.
        out: the file or folder, whose ending may ask for a clip too.
    """

    video: bool
    frames: int | None
    fps: float | None
    loop: int | None
    images: list[Path]
    clips: list[Path]
    given: int | None
    out: Path | None

    def check(self) -> None:
        """Refuse what no weights can do, before any are loaded.

        Raises:
            UserError: options that do not go together, or a value outside its range.
        """
        if self.images and self.clips:
            raise UserError("A clip begins with --image or with --frames-from; leave one out.")
        if self.given is not None and not self.clips:
            raise UserError(
                "--given counts frames of --frames-from; add --frames-from FILE, or leave it out."
            )
        if self.given is not None and self.given < 1:
            raise UserError(f"--given is {self.given}; give 1 or more.")
        if self.frames is not None and self.frames < 2:
            raise UserError(f"--frames is {self.frames}; a clip has 2 or more.")
        if self.asked_by:
            self._check_file(FPS)

    @property
    def asked_by(self) -> str | None:
        """What asks for a clip, in words; None: nothing."""
        options = {
            "--video": self.video,
            "--frames": self.frames is not None,
            "--image": bool(self.images),
            "--frames-from": bool(self.clips),
            "--fps": self.fps is not None,
            "--loop": self.loop is not None,
            str(self.out): self._file is not None
            and self._file.suffix.lower() not in PICTURE_FORMATS,
        }
        return next((name for name, asks in options.items() if asks), None)

    def settings(self, pipe: Pipeline) -> tuple[dict[str, Any], list[str]]:
        """Arguments of a call, and sentences about frames of which something is lost.

        Raises:
            UserError: the weights draw no clips, or frames that cannot be read.
        """
        asked_by, longest = self.asked_by, pipe.trained_frames
        if asked_by and longest == 1:
            raise UserError(
                f"The weights of '{pipe.info.name}' draw no clips, which {asked_by} asks for; "
                "leave it out, or give other weights as --model."
            )
        if asked_by is None and not pipe.draws_clips:
            return {}, []
        self._check_file(self.rate(pipe))
        begun = self._beginnings(pipe)
        return (
            {
                "num_frames": self.frames or max(longest, pipe.usual_frames),
                "frames": [each.frames for each in begun] or None,
            },
            [each.fitted for each in begun if each.fitted],
        )

    def rate(self, pipe: Pipeline) -> float:
        """Frames a second of what is written."""
        return self.fps or pipe.info.sampling.fps or FPS

    @property
    def _file(self) -> Path | None:
        return self.out if self.out is not None and is_picture_file(self.out) else None

    def _check_file(self, fps: float) -> None:
        from mmgen.sample.clip_files import check_clip_file

        fps = fps if self.fps is None else self.fps
        check_clip_file(self._file or Path("clip.gif"), fps, self.loop or 0)

    def _beginnings(self, pipe: Pipeline) -> list[Beginning]:
        from mmgen.beginnings import clip_beginning, picture_beginning

        pictures = [picture_beginning(pipe, path) for path in self.images]
        return pictures + [clip_beginning(pipe, path, self.given) for path in self.clips]
