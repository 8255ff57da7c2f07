"""What is made of figures, whatever their source: panels, modality, questions.

steps      what every sample of an article goes through, in order
captions   the text of each panel, split off the caption
gutters    the boxes of panels in a picture
panels     captions and boxes matched: panels as samples of their own
modality   what made a picture, and names for choosing (`cues`, `cues.tsv`: the words that tell)
pixels     statistics of a picture's small copy; shrinking
questions  question/answer pairs from captions (`terms`: organs, findings, denials)
"""
