"""How a report looks: tables, panels, charts, sentences, exports."""
