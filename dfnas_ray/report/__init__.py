"""The report: reads the run directory alone, writes one self-contained HTML file."""
