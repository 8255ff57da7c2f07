"""Articles of PubMed Central and its kin (JATS XML with images beside it) as a source of figures with captions.

packages   folders, archives and memory as bundles of files
front      what an article says of itself: names, authors, dates, license
jats       one XML file -> articles, figures, graphics
text       captions and paragraphs as plain text
rights     whose figure it is and what may be done with it
filelists  the licenses in the lists that PMC gave out with its packages
marks      whether a caption marks panels
media      from a graphic's reference to a checked image file
mentions   the paragraphs that cite a figure
options    what is asked for: `PmcOptions`
xml        bytes of unknown origin to article elements, safely
reader     a package to samples: `read_package`
source     the inputs as units: `PmcSource`
"""

from __future__ import annotations

from medvlm.data.sources.pmc.options import PmcOptions
from medvlm.data.sources.pmc.packages import MemoryPackage
from medvlm.data.sources.pmc.reader import read_package
from medvlm.data.sources.pmc.source import PmcSource

__all__ = ["MemoryPackage", "PmcOptions", "PmcSource", "read_package"]
