"""Names as hostile, and as telling, as names can be."""

SURNAMES = "Mueller Rossi Tanaka Okafor Silva Novak Dubois Hansen Kowalski Murphy Yilmaz Petrov Costa Nagy Singh Moreau"
PATIENTS = [f"{name}-1970" for name in SURNAMES.split()]
CLASSES = ["<script>alert(1)</script>", "$\\frac{1}{0"]
COLUMN = 'find<b>ing" onload="x'
RUN = "run<i>&"
