"""Code that runs inside the patient: standard library only, Python 3.8 syntax."""
