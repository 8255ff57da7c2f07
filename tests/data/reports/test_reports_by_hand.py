"""Reports in the forms of MIMIC-CXR and Open-i, and what a reader takes from each by hand: findings, impression, both.

None of them is a patient's. Long ones are wrapped as MIMIC-CXR wraps them, at some 80 letters behind a blank.
"""

from __future__ import annotations

import textwrap

import pytest

from medvlm.data.reports import lacking, sections, target

TOP = "                                 FINAL REPORT\n"


def wrapped(text: str, width: int = 79) -> str:
    """Return a report as MIMIC-CXR lays one out: each line behind a blank, none longer than `width` letters."""
    lines = [textwrap.fill(line, width, initial_indent=" ", subsequent_indent=" ") or " " for line in text.split("\n")]
    return TOP + "\n".join(lines) + "\n"


# Report, findings, impression; "" where it has none. Both are the findings, then the impression, unless BOTH says more.
REPORTS = {
    "a letter signed in German": (
        (
            "Befund:\nHerz normal groß. Kein Erguss.\n\nBeurteilung:\nKeine Pneumonie.\n\nMit freundlichen Grüßen\n\n"
            "Prof. Dr. med. K. Meier    Dr. med. A. Schulz\nChefarzt    Assistenzärztin\n"
        ),
        "Herz normal groß. Kein Erguss.",
        "Keine Pneumonie.",
    ),
    "signed without a colon": (
        "FINDINGS: Clear lungs.\n\nIMPRESSION: Normal chest.\n\nElectronically Signed By Jane Doe, MD on 1/2/2020\n",
        "Clear lungs.",
        "Normal chest.",
    ),
    "signed in a sentence": (
        "FINDINGS: Clear lungs.\nIMPRESSION: Normal chest.\nThis report was electronically signed by Jane Doe MD\n",
        "Clear lungs.",
        "Normal chest.",
    ),
    "German name of the impression": (
        "Befund:\nHerz normal groß. Kein Erguss.\n\nBewertung:\nKeine Pneumonie.\n",
        "Herz normal groß. Kein Erguss.",
        "Keine Pneumonie.",
    ),
    "all in lower case": (
        "indication: cough\ncomparison: none\nfindings: large left pneumothorax\nimpression: left pneumothorax.\n",
        "large left pneumothorax",
        "left pneumothorax.",
    ),
    "last item of a list below a line with a number": (
        "FINDINGS: Clear.\nIMPRESSION:\n1. CHF\n2. Healing fracture of the left 6th rib\n3. No pneumothorax\n",
        "Clear.",
        "CHF. Healing fracture of the left 6th rib. No pneumothorax",
    ),
    "usual": (
        wrapped(
            "EXAMINATION: CHEST (PA AND LAT)\n\nINDICATION: ___ year old woman with cough // pneumonia?\n\nTECHNIQUE: "
            "Chest PA and lateral\n\nCOMPARISON: ___\n\nFINDINGS:\n\nHeart size is normal. The mediastinal "
            "contours are unremarkable. There is no focal consolidation, pleural effusion or pneumothorax.\n\n"
            "IMPRESSION:\n\nNo acute cardiopulmonary abnormality."
        ),
        (
            "Heart size is normal. The mediastinal contours are unremarkable. There is no focal consolidation, "
            "pleural effusion or pneumothorax."
        ),
        "No acute cardiopulmonary abnormality.",
    ),
    "prior study in a wrapped line": (
        (
            "FINDINGS: Lungs are clear. There is no change since the\n prior study: large left pneumothorax persists.\n"
            " IMPRESSION: Stable."
        ),
        "Lungs are clear. There is no change since the prior study: large left pneumothorax persists.",
        "Stable.",
    ),
    "exam in a wrapped line": (
        "FINDINGS: Compared with the prior\n exam: left effusion is larger.\nIMPRESSION: Effusion.",
        "Compared with the prior exam: left effusion is larger.",
        "Effusion.",
    ),
    "history in a wrapped line": (
        TOP + " FINDINGS:\n \n Left lung is clear. For further details see\n history: prior right lobectomy with volume"
        " loss.\n \n IMPRESSION:\n \n No change.\n",
        "Left lung is clear. For further details see history: prior right lobectomy with volume loss.",
        "No change.",
    ),
    "technique in a wrapped line": (
        TOP + " FINDINGS:\n \n As compared to the previous radiograph, there is\n technique: related difference. Left "
        "effusion.\n",
        "As compared to the previous radiograph, there is technique: related difference. Left effusion.",
        "",
    ),
    "findings in a wrapped line": (
        "IMPRESSION: There are the following\n findings: left effusion.",
        "",
        "There are the following findings: left effusion.",
    ),
    "a mark before the wrapped name": (
        "FINDINGS: Unchanged since ___\n prior study: left effusion.\nIMPRESSION: Effusion.",
        "Unchanged since ___ prior study: left effusion.",
        "Effusion.",
    ),
    "capitals within a sentence": (
        "FINDINGS: NO CHANGE SINCE PRIOR EXAM: STABLE LEFT EFFUSION.\nIMPRESSION: STABLE.",
        "NO CHANGE SINCE PRIOR EXAM: STABLE LEFT EFFUSION.",
        "STABLE.",
    ),
    "capitals wrapped": (
        (
            "FINDINGS:\n THE HEART IS ENLARGED AND THERE IS NO CHANGE SINCE PRIOR\n EXAM: STABLE LEFT EFFUSION.\n"
            " IMPRESSION: STABLE."
        ),
        "THE HEART IS ENLARGED AND THERE IS NO CHANGE SINCE PRIOR EXAM: STABLE LEFT EFFUSION.",
        "STABLE.",
    ),
    "capitals that begin a line of the findings": (
        "FINDINGS:\nNO CHANGE SINCE PRIOR STUDY ON THE LEFT: EFFUSION.\nNO NEW FINDINGS: CLEAR.\nIMPRESSION: STABLE.",
        "NO CHANGE SINCE PRIOR STUDY ON THE LEFT: EFFUSION. NO NEW FINDINGS: CLEAR.",
        "STABLE.",
    ),
    "lower case throughout": (
        "history: cough.\nfindings: large heart. no effusion.\nimpression: large heart.",
        "large heart. no effusion.",
        "large heart.",
    ),
    "final report in a wrapped sentence": (
        (
            "FINDINGS: Clear. Please see the\n final report: CT chest of today, which shows right mass.\n"
            "IMPRESSION: Left effusion.\n"
        ),
        "Clear. Please see the final report: CT chest of today, which shows right mass.",
        "Left effusion.",
    ),
    "final report at the end": (
        "FINDINGS: Clear.\nIMPRESSION: Left effusion.\nFinal report\n",
        "Clear.",
        "Left effusion.",
    ),
    "final report in capitals at the end": (
        "FINDINGS: Clear.\nIMPRESSION: Left effusion.\n\nFINAL REPORT\nElectronically signed by: ___\n",
        "Clear.",
        "Left effusion.",
    ),
    "a preliminary side above": (
        (
            "PRELIMINARY REPORT\nFINDINGS: Left pneumothorax.\nIMPRESSION: Left pneumothorax.\n\nFINAL REPORT\n"
            "IMPRESSION: Right pneumothorax."
        ),
        "",
        "Right pneumothorax.",
    ),
    "the final report of a phone call": (
        "FINDINGS: LEFT EFFUSION. PLEASE SEE THE\nFINAL REPORT: CT OF TODAY.\nIMPRESSION: EFFUSION.",
        "LEFT EFFUSION. PLEASE SEE THE FINAL REPORT: CT OF TODAY.",
        "EFFUSION.",
    ),
    "signed below a full line in capitals": (
        "IMPRESSION: PNEUMONIA IN THE LEFT LOWER LOBE, STABLE EFFUSION\nDICTATED BY: JOHN SMITH MD\n",
        "",
        "PNEUMONIA IN THE LEFT LOWER LOBE, STABLE EFFUSION",
    ),
    "signed below a line that runs on": (
        "FINDINGS: PNEUMONIA IN THE LEFT LOWER LOBE, UNCHANGED SINCE PRIOR\nELECTRONICALLY SIGNED BY: JOHN SMITH MD\n",
        "PNEUMONIA IN THE LEFT LOWER LOBE, UNCHANGED SINCE PRIOR",
        "",
    ),
    "a history below a full line in capitals": (
        "FINDINGS: PNEUMONIA IN THE LEFT LOWER LOBE, STABLE EFFUSION\nHISTORY: 55 YEAR OLD\nIMPRESSION: PNEUMONIA",
        "PNEUMONIA IN THE LEFT LOWER LOBE, STABLE EFFUSION",
        "PNEUMONIA",
    ),
    "a notification below the time": (
        (
            "FINDINGS: Left effusion, as told to Dr. ___ by telephone at 3:30 PM\nNOTIFICATION: Dr. John Smith was "
            "called.\nIMPRESSION: Effusion."
        ),
        "Left effusion, as told to Dr. ___ by telephone at 3:30 PM",
        "Effusion.",
    ),
    "a recommendation below capitals": (
        "IMPRESSION: Mild interstitial edema on background of COPD: NSIP\nRECOMMENDATION(S): CT in 3 months.",
        "",
        "Mild interstitial edema on background of COPD: NSIP",
    ),
    "a comparison right below findings": (
        "FINDINGS:\nComparison: ___. The left effusion has increased.\nHeart is large.\nIMPRESSION: Effusion.",
        "The left effusion has increased. Heart is large.",
        "Effusion.",
    ),
    "a German comparison right below findings": (
        (
            "Befund:\nVergleich: Voraufnahme vom 1.2.2018. Der Erguss links hat zugenommen.\nHerz grenzwertig groß.\n\n"
            "Zusammenfassung:\nErguss links."
        ),
        "Der Erguss links hat zugenommen. Herz grenzwertig groß.",
        "Erguss links.",
    ),
    "a comparison in a paragraph of its own": (
        "Findings: Clear.\n\nComparison: None. Old ones are lost.\n\nImpression: Normal.",
        "Clear.",
        "Normal.",
    ),
    "a German rib's number that a wrap puts first": (
        "Befund: Fraktur der\n1. Rippe links. 2. Rippe intakt.",
        "Fraktur der 1. Rippe links. 2. Rippe intakt.",
        "",
    ),
    "REPORT over a title": (
        "REPORT: CHEST X-RAY\nCLINICAL INDICATION: Dyspnoea\nFINDINGS: Left effusion.\nOPINION: Effusion.",
        "Left effusion.",
        "Effusion.",
    ),
    "REPORT before a number": ("SUMMARY:\nNormal.\nREPORT: 12345", "", "Normal."),
    "Report alone on a line": (
        "FINDINGS: Lungs clear.\nHeart and\nReport\nnormal.\nIMPRESSION: Normal.",
        "Lungs clear. Heart and Report normal.",
        "Normal.",
    ),
    "the last item below a full line": (
        (
            "IMPRESSION:\n1. No acute cardiopulmonary process\n2. Stable cardiomegaly with chronic interstitial "
            "changes of both lungs\n3. Right IJ central line"
        ),
        "",
        (
            "No acute cardiopulmonary process. Stable cardiomegaly with chronic interstitial changes of both lungs. "
            "Right IJ central line"
        ),
    ),
    **{
        f"{words!r} is no addendum": (f"FINDINGS: Clear.\nIMPRESSION: Normal.\n\n{words}", "Clear.", "Normal.")
        for words in (
            "ADDENDUM: None.",
            "Addendum: No",
            "ADDENDUM: N/A",
            "Nachtrag: entfällt",
            "Final addendum: none",
            "ADDENDUM: -",
            "ADDENDUM:",
        )
    },
    "an addendum that a sentence names": (
        "FINDINGS: ALL CLEAR. PLEASE SEE THE\n ADDENDUM OF THE CT OF ___.\nIMPRESSION: NORMAL. NO\nADDENDUM FOLLOWS.",
        "ALL CLEAR. PLEASE SEE THE ADDENDUM OF THE CT OF ___.",
        "NORMAL. NO ADDENDUM FOLLOWS.",
    ),
    "an addendum that the indication names": ("INDICATION: see\nADDENDUM to CT.\nFINDINGS: clear.", "clear.", ""),
    **{
        f"{words!r} is of the order": (f"INDICATION: cough\n{words}\nIMPRESSION: Normal.", "", "Normal.")
        for words in (
            "CLINICIAN NAME: DR JONES\nHOSPITAL: ST MARY\nWARD: 5",
            "\nREFERRED BY: DR JONES\n",
            "DOB: 1/2/1950\nROOM: 512",
            "\nMEDICATIONS: Aspirin.\nALLERGIES: Penicillin.\n",
            "EINWEISER: DR. MEIER\nSTATION: 5",
            "HEART RATE: 80 per minute.",
        )
    },
    "wet read above": (
        " WET READ: ___ ___ 5:32 PM\n FINDINGS: Right effusion.\n IMPRESSION: Right effusion.\n"
        + wrapped("FINDINGS: Left effusion.\n\nIMPRESSION: Left effusion, small."),
        "Left effusion.",
        "Left effusion, small.",
    ),
    "no stop between the sections": (
        "FINDINGS: No pneumothorax\nIMPRESSION: Pneumonia in the left lower lobe",
        "No pneumothorax",
        "Pneumonia in the left lower lobe",
    ),
    "a number at the end of the findings": (
        "FINDINGS: Stable nodule in the right lobe, size 4\nIMPRESSION: 5 mm nodule unchanged.",
        "Stable nodule in the right lobe, size 4",
        "5 mm nodule unchanged.",
    ),
    "a range over two lines": (
        "FINDINGS: Nodule measuring 3\n - 4 mm, left ribs 4\n - 6 broken, fusion of C5\n - C6.\nIMPRESSION: Nodule.",
        "Nodule measuring 3 - 4 mm, left ribs 4 - 6 broken, fusion of C5 - C6.",
        "Nodule.",
    ),
    "a list of bullets": (
        "FINDINGS: See below.\n\nIMPRESSION:\n - No pneumothorax\n - 5 mm nodule in the\n   left lobe\n - Effusion",
        "See below.",
        "No pneumothorax. 5 mm nodule in the left lobe. Effusion",
    ),
    "a list below a negation": (
        "FINDINGS: There is no:\n - effusion\n - pneumothorax\n\nIMPRESSION: Normal.",
        "There is no: effusion; pneumothorax",
        "Normal.",
    ),
    "numbers that a wrap puts first": (
        "IMPRESSION:\n 1. Right chest tubes are unchanged in positions 1 and\n 2. No pneumothorax.\n",
        "",
        "Right chest tubes are unchanged in positions 1 and 2. No pneumothorax.",
    ),
    "a rib's number that a wrap puts first": (
        "FINDINGS: Healed fracture of the left rib\n 1. No pneumothorax.\nIMPRESSION: None.",
        "Healed fracture of the left rib 1. No pneumothorax.",
        "None.",
    ),
    "an enumeration on lines": (
        wrapped(
            "IMPRESSION:\n\n1. New left pleural effusion with adjacent atelectasis, pneumonia cannot be "
            "excluded.\n2. 5 mm nodule in the right upper lobe.\n3. No pneumothorax."
        ),
        "",
        (
            "New left pleural effusion with adjacent atelectasis, pneumonia cannot be excluded. 5 mm nodule in the "
            "right upper lobe. No pneumothorax."
        ),
    ),
    "an enumeration within a line": (
        wrapped(
            "FINDINGS:\n\nIMPRESSION: 1. No pneumothorax.  2. 5 mm nodule.  3. <1 cm effusion.  4. (Old) fracture."
        ),
        "",
        "No pneumothorax. 5 mm nodule. <1 cm effusion. (Old) fracture.",
    ),
    "indication for a chest radiograph": (
        "INDICATION FOR CHEST RADIOGRAPH: ___ with left pneumothorax.\n\nFINDINGS: The lungs are clear.\n",
        "The lungs are clear.",
        "",
    ),
    "prior chest radiograph": (
        "PRIOR CHEST RADIOGRAPH: ___, large left effusion.\n\nIMPRESSION: No effusion.",
        "",
        "No effusion.",
    ),
    "comparison chest radiograph": (
        "COMPARISON CHEST RADIOGRAPH: ___, large left effusion.\n\nIMPRESSION: No effusion.",
        "",
        "No effusion.",
    ),
    "history of chest trauma": (
        "HISTORY OF CHEST TRAUMA: Left rib fractures.\n\nFINDINGS: Clear.\n\nIMPRESSION: Normal.",
        "Clear.",
        "Normal.",
    ),
    "impression and recommendations": (
        "FINDINGS: Clear.\nIMPRESSION AND RECOMMENDATION(S): Pneumonia. CT.",
        "Clear.",
        "Pneumonia. CT.",
    ),
    "impression/recommendations": ("FINDINGS: Clear.\nIMPRESSION/RECOMMENDATIONS: Pneumonia.", "Clear.", "Pneumonia."),
    "impression of the chest": ("FINDINGS: Clear.\nCHEST IMPRESSION: Pneumonia.", "Clear.", "Pneumonia."),
    "summary": ("FINDINGS: Left lung clear.\nSUMMARY: No pneumothorax.", "Left lung clear.", "No pneumothorax."),
    "report": ("INDICATION: cough\n\nREPORT: Left effusion.\n\nIMPRESSION: Effusion.", "Left effusion.", "Effusion."),
    "interpretation": ("INDICATION: cough\n\nINTERPRETATION: Left effusion.", "", "Left effusion."),
    "comment": ("INDICATION: cough\n\nCOMMENT: Left effusion.\n\nIMPRESSION: Effusion.", "Left effusion.", "Effusion."),
    "misspelled": ("INDICATON: cough\nFINSINGS: Left effusion.\nIMPRESION: Effusion.", "Left effusion.", "Effusion."),
    "compression is no impression": (
        "FINDINGS: Old.\nCOMPRESSION: T12, half its height.\nIMPRESSION: Old fracture.",
        "Old. COMPRESSION: T12, half its height.",
        "Old fracture.",
    ),
    "a picture's heading": (
        "TWO VIEWS OF THE CHEST: The lungs are clear.\n\nIMPRESSION: Normal.",
        "The lungs are clear.",
        "Normal.",
    ),
    "organs within the findings": (
        "FINDINGS:\nLUNGS: No consolidation.\nPLEURA: No effusion.\nIMPRESSION: Normal.",
        "LUNGS: No consolidation. PLEURA: No effusion.",
        "Normal.",
    ),
    "a comparison behind findings": (
        "FINDINGS: Comparison: ___. There is a new left effusion.\nIMPRESSION: Effusion.",
        "There is a new left effusion.",
        "Effusion.",
    ),
    "a history within the impression": (
        "IMPRESSION: Left effusion. History: cough. Right effusion.",
        "",
        "Left effusion. Right effusion.",
    ),
    "an exam within the findings": ("FINDINGS: Right IJ. EXAM: limited. No effusion.", "Right IJ. No effusion.", ""),
    "a recommendation within an enumeration": (
        "IMPRESSION: 1. Left effusion. 2. Recommendation: CT. 3. Right pneumothorax.",
        "",
        "Left effusion. Recommendation: CT. Right pneumothorax.",
    ),
    "a recommendation behind an item": (
        "IMPRESSION:\n 1. Left effusion. Recommendation: CT.\n 2. Right pneumothorax.",
        "",
        "Left effusion. Recommendation: CT. Right pneumothorax.",
    ),
    "a recommendation below": (
        wrapped(
            "FINDINGS: Clear.\n\nIMPRESSION: Normal.\n\nRECOMMENDATION(S): CT of the chest.\n\nNOTIFICATION: None."
        ),
        "Clear.",
        "Normal.",
    ),
    "one line": (
        "EXAMINATION: CHEST INDICATION: Cough FINDINGS: Left effusion. IMPRESSION: Effusion. RECOMMENDATION: CT. Soon.",
        "Left effusion.",
        "Effusion.",
    ),
    "removed words": (
        "FINDINGS: There are no XXXX of a pleural effusion.. Heart size normal .\nIMPRESSION: Chest x-XXXX.",
        "There are no ___ of a pleural effusion. Heart size normal.",
        "Chest x-___.",
    ),
}
BOTH = {
    "all in lower case": "large left pneumothorax. left pneumothorax.",
    "no stop between the sections": "No pneumothorax. Pneumonia in the left lower lobe",
    "a number at the end of the findings": "Stable nodule in the right lobe, size 4. 5 mm nodule unchanged.",
    "a list below a negation": "There is no: effusion; pneumothorax. Normal.",
    "a history below a full line in capitals": "PNEUMONIA IN THE LEFT LOWER LOBE, STABLE EFFUSION. PNEUMONIA",
    "a notification below the time": "Left effusion, as told to Dr. ___ by telephone at 3:30 PM. Effusion.",
}
# Where no heading of findings stands, or one for both: what both sections are.
WHOLE = {
    "a final report on its heading's line": (
        (
            "PRELIMINARY REPORT\nFINDINGS: Left pneumothorax.\nIMPRESSION: Left pneumothorax.\n\nFINAL REPORT: There "
            "is a right pneumothorax."
        ),
        "There is a right pneumothorax.",
    ),
    "a wet read, then the final report on its heading's line": (
        (
            "WET READ: IMPRESSION: Left pneumothorax.\n______\nFINAL REPORT: There is a right pneumothorax, not a left "
            "one."
        ),
        "There is a right pneumothorax, not a left one.",
    ),
    "a German noun behind a wrap": (
        "BEFUND UND BEURTEILUNG: Im Vergleich zur\nVoraufnahme: Zunahme des Ergusses.",
        "Im Vergleich zur Voraufnahme: Zunahme des Ergusses.",
    ),
    "organs and devices": (
        "INDICATION: Cough.\nWARD: 5\n\nLINES AND TUBES: None.\nMEDIASTINUM: Normal.\nHERZ: Normal.",
        "LINES AND TUBES: None. MEDIASTINUM: Normal. HERZ: Normal.",
    ),
    "findings, then one heading for both": (
        "FINDINGS: Left effusion.\nFINDINGS AND IMPRESSION: Right pneumothorax.",
        "Left effusion. Right pneumothorax.",
    ),
    "one heading for both": ("INDICATION: cough\nFINDINGS, IMPRESSION: Pneumonia.", "Pneumonia."),
    "a picture's time": (
        "PORTABLE CHEST: ___, 5:32 PM.\nCOMPARISON: ___.\n\nLarge left pneumothorax.\n",
        "Large left pneumothorax.",
    ),
    "a picture's heading before a paragraph": (
        TOP + " CHEST, SINGLE AP PORTABLE VIEW:\n \n HISTORY: CHF.\n \n Moderate left effusion.\n",
        "Moderate left effusion.",
    ),
    "a picture's finding before a paragraph": (
        "PORTABLE CHEST: The heart is large.\nCOMPARISON: ___.\n\nLarge left pneumothorax.\n",
        "The heart is large. Large left pneumothorax.",
    ),
    "two pictures": (
        TOP + " INDICATION: ___F.\n \n TWO VIEWS OF THE CHEST: The lungs are clear.\n \n CT CHEST: Right mass.\n",
        "The lungs are clear. CT CHEST: Right mass.",
    ),
    "an indication's heading of its own": (
        "INDICATION FOR CHEST RADIOGRAPH: ___ with left pneumothorax.\n\nThe lungs are clear.\n",
        "The lungs are clear.",
    ),
    "organs without findings": (
        "COMPARISON: None.\n\nLUNGS: Large left pneumothorax.\nHEART: Normal.\n\nIMPRESSION: See above.",
        "LUNGS: Large left pneumothorax. HEART: Normal. See above.",
    ),
    "organs alone": (
        "INDICATION: Cough.\nORDERING SERVICE: ED\n\nLUNGS: Clear.\nHEART: Normal.",
        "LUNGS: Clear. HEART: Normal.",
    ),
    "a comparison within a paragraph": (
        wrapped(
            "CLINICAL HISTORY: cough\nTECHNIQUE: PA and lateral.\n\nThe lungs are clear.\n\nThe heart is normal. "
            "COMPARISON: ___. No effusion."
        ),
        "The lungs are clear. The heart is normal. COMPARISON: ___. No effusion.",
    ),
    "no heading at all": (
        "Heart size normal. Comparison: ___. No effusion.",
        "Heart size normal. Comparison: ___. No effusion.",
    ),
    "a paragraph below a comparison, wrapped": (
        wrapped(
            "REASON FOR EXAMINATION: Evaluation of the patient with chest pain.\n\nAP radiograph in "
            "comparison to ___ and, as far as the position of the patient lets it be seen, the left apical "
            "pneumothorax has grown to 2. 1 cm. No pleural effusion is seen."
        ),
        (
            "AP radiograph in comparison to ___ and, as far as the position of the patient lets it "
            "be seen, the left apical pneumothorax has grown to 2. 1 cm. No pleural effusion is seen."
        ),
    ),
}
ADDENDA = [
    TOP + "FINDINGS: Left pneumothorax.\nIMPRESSION: Left pneumothorax.\n\nADDENDUM: The side was wrong.\n"
    "IMPRESSION: Right pneumothorax.",
    f" ADDENDUM  Corrected side: the effusion is on the RIGHT.\n {'_' * 78}\n{TOP} FINDINGS: Left effusion.\n",
    "FINDINGS: Left effusion.\n\nAddendum:\nRight effusion.",
    "FINDINGS: Left effusion.\n\nCHEST RADIOGRAPH ADDENDUM: Right effusion.",
]

ADDENDA += [
    f"FINDINGS: Clear.\nIMPRESSION: Left pneumothorax.\n\n{added}"
    for added in (
        "ADDENDUM:\nIMPRESSION: Right pneumothorax.",
        "ADDENDUM\n\nIMPRESSION:\n\n Right pneumothorax.",
        "ADDENDUM:\n______\nFINDINGS: Right pneumothorax.",
        "Addendum #1: Right pneumothorax.",
        "Addendum 1: The side is right.",
        "Addendum to report: The side is right.",
        "Addendum (___, 3:00 PM): The side is right.",
        "Addendum by Dr. ___: The side is right.",
        "Addendum - right side",
        "addendum\nright side",
        "*** ADDENDUM ***\nThe side is right.",
        "(ADDENDUM) The side is right.",
        "START OF ADDENDUM\n The side is right.\nEND OF ADDENDUM",
        "REVISED IMPRESSION: Right pneumothorax.",
        "Amended report: Right pneumothorax.",
        "Corrected findings: Right pneumothorax.",
        "CORRECTION: right side.",
        "ADDENDUM: None of it is on the left.",
    )
]
ADDENDA += [
    "IMPRESSION: Left pneumothorax\nADDENDUM: The side is right.",
    "IMPRESSION: Left pneumothorax. Addendum 2: The side is right.",
    "IMPRESSION: NO PNEUMONIA OR EFFUSION IS SEEN ON THIS STUDY\nADDENDUM: LEFT PNEUMOTHORAX",
]
# Where a heading may be within a sentence, or text behind it may be of another section.
UNSAFE = [
    "FINDINGS:  PA and lateral views of chest.\nComparison:  ___.\n\nThe lungs are clear.\nIMPRESSION:  Effusion.\n",
    "Findings:\nLiver: normal.\nTechnique: Ultrasound.\n\nKidneys: normal.\nImpression: Normal.\n",
    "Befund: Zunahme des Ergusses links gegenüber der letzten externen\nVoraufnahme: Rechts kein Erguss.",
    "Befund: Kein Nachweis eines pathologischen\nBefunde: der Lunge. Kein Erguss.",
    "Findings: Heart is large.\nComparison: ___. The left effusion is new.\nImpression: Effusion.",
    "FINDINGS:\nComparison: Chest radiograph of ___\nThe left effusion is new.\nIMPRESSION: Effusion.",
    "FINDINGS: Left effusion.\nREPORT: There is a right effusion.\nIMPRESSION: Effusion.",
    "PRELIMINARY READ\nIMPRESSION: Left pneumothorax.\n\nFinal read - right pneumothorax.",
    "WET READ:\nIMPRESSION: Left pneumothorax.\nFINAL IMPRESSION: Right pneumothorax.",
]
# What is left of a report is not learnt where only a line without a sentence follows the preliminary side.
PRELIMINARY = [
    "WET READ\nIMPRESSION: Left pneumothorax\n\nFINAL REPORT\n\nSmall right pneumothorax",
    "PRELIMINARY REPORT\nIMPRESSION: Left pneumothorax.\n\nFINAL REPORT\n Right pneumothorax",
    "PRELIMINARY REPORT\nIMPRESSION: Left pneumothorax.\n\nFINAL REPORT\n",
]


@pytest.mark.parametrize("name", REPORTS)
def test_findings_and_impression(name: str) -> None:
    text, findings, impression = REPORTS[name]
    found = sections(text)
    assert (target(found, "findings") or "", target(found, "impression") or "") == (findings, impression)
    assert target(found, "both") == BOTH.get(name, " ".join(filter(None, (findings, impression))))


@pytest.mark.parametrize("name", WHOLE)
def test_what_stands_under_no_heading_or_one_for_both(name: str) -> None:
    text, whole = WHOLE[name]
    assert target(sections(text), "both") == whole


@pytest.mark.parametrize("text", ADDENDA)
@pytest.mark.parametrize("choice", ["findings", "impression", "both"])
def test_a_report_with_an_addendum_is_left_out(text: str, choice: str) -> None:
    """It may correct what stands above it; which words it corrects no program can tell."""
    assert target(sections(text), choice) is None
    assert lacking(sections(text), choice) == "report has an addendum"


@pytest.mark.parametrize("text", UNSAFE)
def test_a_report_that_cannot_be_split_safely_is_left_out(text: str) -> None:
    assert target(sections(text), "both") is None
    assert lacking(sections(text), "both") == "report cannot be split safely"


@pytest.mark.parametrize("text", PRELIMINARY)
def test_a_preliminary_side_is_never_learnt(text: str) -> None:
    assert target(sections(text), "both") is None
    assert "Left pneumothorax" in sections(text).rest
