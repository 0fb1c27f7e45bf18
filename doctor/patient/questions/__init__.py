"""One file per question: answer(settings) -> something that JSON can hold."""
