"""Every form of a page is opened, and its buttons are pressed with the mouse at their coordinates."""

from typing import Any

from tests.e2e.browser import Tab

PREPARE = """
    window.pressed = [];
    document.addEventListener('submit', event => event.preventDefault(), true);
    document.addEventListener('click', event => {
        const button = event.target.closest('button');
        if (button) { window.pressed.push(button); event.preventDefault(); event.stopPropagation(); }
    }, true);
    window.buttons = [...document.querySelectorAll('main form button:not([type=button])')];
    return window.buttons.length;
"""
PLACE = """
    const button = window.buttons[NUMBER];
    document.querySelectorAll('main details[open]').forEach(it => { if (!it.contains(button)) it.open = false; });
    for (let it = button.closest('details'); it; it = it.parentElement.closest('details')) it.open = true;
    button.scrollIntoView({block: 'center', inline: 'nearest', behavior: 'instant'});
    const {x, y, width, height} = button.getBoundingClientRect();
    const name = `${button.textContent.trim().slice(0, 60)} (${button.form.getAttribute('action')})`;
    return {x: x + width / 2, y: y + height / 2, name, is_shown: button.checkVisibility() && width > 0 && height > 0};
"""


async def press_all(page: Tab, where: str) -> list[str]:
    """Press each submit button of the forms on a page. Return the buttons that cannot be pressed."""
    faults: list[str] = []
    for number in range(await page.run(PREPARE)):
        place: dict[str, Any] = await page.run(PLACE.replace("NUMBER", str(number)))
        if not place["is_shown"]:
            faults.append(f"{where}: {place['name']} is not shown")
            continue
        for kind, buttons in (("mousePressed", 1), ("mouseReleased", 0)):
            about = {"x": place["x"], "y": place["y"], "button": "left", "buttons": buttons, "clickCount": 1}
            await page.call("Input.dispatchMouseEvent", type=kind, **about)
        if not await page.run(f"return window.pressed.pop() === window.buttons[{number}]"):
            faults.append(f"{where}: {place['name']} is not under the mouse at {place['x']:.0f}, {place['y']:.0f}")
    return faults
