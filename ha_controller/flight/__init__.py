"""The flight recorder: what came in and what was decided, kept for a while, and decided anew with other settings.

Pure: `recorder` takes notes, `record` is what it holds, `text` is how that is written down, `replay` feeds it to a
fresh core, `verdict` puts then and now beside each other. Files and threads are the business of `ha_controller.app`.
"""
