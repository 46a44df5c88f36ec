"""Floor 4: rows become tables, curves, drawn videos, and one HTML report."""

from stvg_lightning.reports.curves import Curve, read_curves
from stvg_lightning.reports.drawing import TimedTube, display_scale, drawn_video, tubes_video
from stvg_lightning.reports.gallery import GalleryChoice, GalleryItem, choose_gallery, gallery_item
from stvg_lightning.reports.report import ReportInputs, render_report, write_report
from stvg_lightning.reports.results import difference_sentence
from stvg_lightning.reports.time_bar import TimeBarRow, time_bar_svg

__all__ = [
    "Curve",
    "GalleryChoice",
    "GalleryItem",
    "ReportInputs",
    "TimeBarRow",
    "TimedTube",
    "choose_gallery",
    "difference_sentence",
    "display_scale",
    "drawn_video",
    "gallery_item",
    "read_curves",
    "render_report",
    "time_bar_svg",
    "tubes_video",
    "write_report",
]
