"""Whether the names of sub-folders are labels (normal/, pneumonia/) or patients: an export is often a folder for each."""

from __future__ import annotations

import re

import numpy as np

from scanlearn.catalog.mapped import encode
from scanlearn.catalog.table import Catalog

FEWEST_PATIENTS = 3  # that a word must be seen of, where patients are known, to be of none of them

# What folders of labelled scans are called. A word that is missing costs a person one option (--target folder); one
# that is also a person's name would give that person away.
LABEL_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
    normal abnormal healthy unhealthy disease diseased sick control controls finding findings pathology pathological
    positive negative yes no none other others unknown background suspicious probable probably possible doubtful
    benign malignant cancer cancerous tumor tumors tumour tumours lesion lesions nodule nodules mass masses cyst cysts
    polyp polyps stone stones fracture fractures fractured effusion pneumonia pneumothorax edema oedema atelectasis
    consolidation infiltrate infiltration fibrosis emphysema cardiomegaly hernia thickening pleural tuberculosis tb
    covid sars influenza viral virus bacterial bacteria fungal fungus infection infected lung opacity opacities ground
    glass clear opaque glioma meningioma pituitary adenoma carcinoma adenocarcinoma sarcoma lymphoma melanoma nevus
    nevi keratosis dermatofibroma vascular squamous basal cell cells hemorrhage haemorrhage bleeding bleed stroke
    ischemic ischaemic infarct aneurysm dementia demented nondemented alzheimer alzheimers retinopathy diabetic
    proliferative nonproliferative glaucoma cataract amd dme cnv drusen macular degeneration myopia hypertensive
    arthritis osteoarthritis osteoporosis osteopenia kl birads rads grade stage class type level score label
    mild moderate severe minimal very non not low high medium mid early late small large left right with without
    chest thorax abdomen abdominal head brain neck knee hip spine hand wrist elbow shoulder foot ankle forearm humerus
    breast heart liver kidney prostate colon pancreas spleen lungs bone bones skin eye retina
    frontal lateral axial coronal sagittal view pa ap ct mr mri pet us xray xr dx cr mg t1 t1c t1gd t2 flair dwi adc swi
    contrast native arterial venous portal delayed phase pre post scan scans image images slice slices
    """,
    )
)


def folders_are_labels(catalog: Catalog, column: str = "folder") -> bool:
    """Whether no word of the column can be a patient.

    Either every word is made of ``LABEL_WORDS``, or patients are known and each word is seen of three of them.
    """
    cells = encode(catalog.array(column))
    word, patient = catalog.codes(column).astype(np.int64), catalog.codes("patient_id").astype(np.int64)
    if all(sounds_like_label(text) for text in cells.dictionary.to_pylist() if text):
        return True
    rows = np.flatnonzero(word)
    pairs = np.unique(word[rows] * (len(catalog) + 1) + patient[rows])
    _, patients = np.unique(pairs // (len(catalog) + 1), return_counts=True)
    return catalog.patients_known and int(patients.min(initial=FEWEST_PATIENTS)) >= FEWEST_PATIENTS


def sounds_like_label(text: str) -> bool:
    """Whether a folder's name is made of words for findings, organs or views, with numbers up to 99.

    >>> [sounds_like_label(text) for text in ("PNEUMONIA", "covid-19", "grade_2", "3", "DOE^JANE", "patient 12")]
    [True, True, True, True, False, False]
    """
    parts = re.findall(r"[^\W_]+", text.lower())
    if re.fullmatch(r"\d", text):
        return True
    known = [part in LABEL_WORDS or re.sub(r"\d{1,2}$", "", part) in LABEL_WORDS for part in parts]
    return any(known) and all(k or re.fullmatch(r"\d{1,2}", part) for k, part in zip(known, parts, strict=True))
