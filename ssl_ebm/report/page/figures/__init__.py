"""Small pictures as text: charts in SVG, images in PNG.

Colours are CSS classes of the page that holds them, so that one picture serves light and dark. Shapes of markers and
dashes tell apart what shares a colour, also where colours are not seen. Every chart is finished markup: its functions
escape the names and titles that they are given.
"""
