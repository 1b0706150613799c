"""What a file is by its first bytes, for messages about files that are no images."""

from __future__ import annotations

HEIC = "HEIC"
_MARKS = (
    (b"\x89PNG", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"BM", "BMP"),
    (b"\0\0\0\x0cjP  ", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\xff\x0a", "an image of JPEG XL"),
    (b"\0\0\0\x0cJXL ", "an image of JPEG XL"),
    (b"8BPS", "PSD"),
    (b"v/1\x01", "an image of OpenEXR"),
    (b"#?RADIANCE", "an image of Radiance HDR"),
    (b"version https://git-lfs", "a Git LFS pointer (fetch the files with git lfs pull)"),
    (b"\x1f\x8b", "gzip data"),
    (b"PK\x03\x04", "a zip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a rar archive"),
    (b"%PDF", "a PDF"),
    (b"%!PS", "PostScript"),
    (b"\x1aE\xdf\xa3", "a video (Matroska, WebM)"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "HDF5 data"),
    (b"SIMPLE  =", "an image of FITS"),
    (b"\x00\x05\x16\x07", "a macOS resource fork"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x80\x02", "pickled Python data"),
    (b"\x80\x04", "pickled Python data"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
)
BINARY = frozenset(name for mark, name in _MARKS if any(not 32 <= byte < 127 for byte in mark))
"""Kinds of files that begin with what no text begins with, in any encoding."""
_BRANDS = {
    b"avif": "AVIF", b"avis": "AVIF", b"heic": HEIC, b"heix": HEIC, b"hevc": HEIC, b"heim": HEIC, b"mif1": HEIC,
    b"msf1": HEIC, b"crx ": "an image of Canon raw",
}  # fmt: skip


def what_it_is(head: bytes) -> str:
    """Name of the kind of file that begins with these bytes, as in "HTML" or "an image of JPEG XL"."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "a video (MP4, QuickTime)")
    if head[:4] == b"RIFF":
        return "WEBP" if head[8:12] == b"WEBP" else "a RIFF file (sound or video)"
    if head[128:132] == b"DICM":
        return "an image of DICOM"
    if head[257:262] == b"ustar":
        return "a tar archive"
    return _text_kind(head)


def _text_kind(head: bytes) -> str:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:512].lower()
    if not text:
        return "empty" if not head else "blank"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "HTML (a web page, perhaps an error page of a download)"
    if b"<svg" in text:
        return "an image of SVG"
    if text.startswith(b"<"):
        return "XML"
    if text.startswith((b"{", b"[")):
        return "JSON or other text"
    if not head.translate(None, bytes(range(32, 127)) + b"\t\n\r\f\b"):
        return "text"
    return "zeros" if not head.strip(b"\0") else "data of an unknown kind"
