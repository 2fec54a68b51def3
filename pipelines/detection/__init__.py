"""`detect_anomalies`, step by step: labels, judging, results, page."""
