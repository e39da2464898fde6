"""Pictures of the level graph: text, DOT, SVG, PNG, Mermaid and one offline page."""
