"""A run as one HTML file that needs no network.

- ``page.py``       the page: its parts in order, and the data in it
- ``tables.py``     the parts that are text and numbers
- ``figures.py``    the charts of what was measured, as plotly's JSON
- ``timelines.py``  the charts of single requests, and how the models compare in them
- ``looks.py``      colour, dash and marker of each model
- ``drawing.py``    plotly.js, which draws in the browser
- ``style.css``, ``charts.js``, ``report.js``   how the page looks; drawing a chart; drawing the report's
"""
