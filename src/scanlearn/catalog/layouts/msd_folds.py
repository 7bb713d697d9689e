"""Who divided the Decathlon's brain tumours, other than by chance: the first fold of ssCPCseg.

Source: the lists that Iwasawa et al., BrainLes 2020, gave out with their code (spec_cpcseg §8.4). Numbers of cases
(BRATS_446 is 446). What they train with few labels on are the first 3, 6, 12, 24 and 96 of one order.
"""

from __future__ import annotations

import re

from scanlearn.catalog.layouts.layout import Split

NAME = "iwasawa_fold0"
SPLIT = Split(
    False,
    "of Iwasawa et al. 2020, 387/48/49; --labels 3, 6, 12, 24 and 96 take their very cases, whatever the seed.",
)
# Training cases in the order in which they are labelled.
_ORDER = """
446 415 165 293 121 435 038 140 305 197 452 375 177 093 439 432 281 451 126 247 385 361 275 412 198 282 262 307
468 082 016 374 172 341 220 271 117 419 425 338 008 122 360 382 229 359 470 163 445 150 295 264 353 340 175 428
235 014 213 403 376 326 079 484 164 086 096 393 136 073 001 013 106 456 066 169 402 196 257 329 236 395 173 396
123 186 044 313 194 171 223 023 279 347 330 333
"""
_VAL = """
325 364 413 041 094 174 217 012 147 026 185 450 441 368 151 052 259 133 227 070 423 084 178 316 142 201 309 267
020 463 006 416 362 238 162 391 455 160 252 434 009 024 221 075 243 032 429 027
"""
_TEST = """
072 207 102 294 265 152 427 209 418 377 344 234 095 261 348 448 035 148 069 191 482 256 381 400 055 065 408 449
404 161 166 469 124 280 401 421 406 335 248 129 199 125 099 063 410 442 366 048 300
"""


def fold0(case: str, test: bool) -> tuple[str, str]:
    """(part, place in the order of labelled training cases) of a case by the name of its file, "" for none.

    Args:
        test: whether it is one of the 266 whose masks are not public; they are in no part.

    >>> fold0("BRATS_446.nii.gz", False), fold0("BRATS_325.nii.gz", False), fold0("BRATS_002.nii.gz", False)
    (('train', '1'), ('val', ''), ('train', ''))
    """
    number = re.search(r"\d+", case)
    if test or number is None:
        return "", ""
    of = number[0].zfill(3)
    if of in _PARTS:
        return _PARTS[of], ""
    return "train", _PLACES.get(of, "")


_PARTS = {**dict.fromkeys(_VAL.split(), "val"), **dict.fromkeys(_TEST.split(), "test")}
_PLACES = {of: str(place) for place, of in enumerate(_ORDER.split(), 1)}
