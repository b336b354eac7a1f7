"""The soak: an engine under load for as long as you like; is it the same at the end as in the middle?"""
