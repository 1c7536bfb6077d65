"""A refused form has its values back, errors beside its fields, and nothing in a value becomes HTML."""

from edgeproxy.collector.pages.refilled_form import SUMMARY, FieldRefusal, refill_form
from tests.support.visitor import Read

PAGE = f"""<!doctype html><title>x &amp; y</title>{SUMMARY}
<form method="post" action="/other"><input name="name" value="o"></form>
<details><summary>s</summary><form method="post" action="/it"><input type="hidden" name="of" value="1">
<label>First <input name="name" value=""></label></form></details>
<details class="act"><summary>s</summary><form method="post" action="/it"><input type="hidden" name="form" value="new">
<input type="hidden" name="of" value="2">
<label>The &quot;name&quot; <input name="name" required value="a&amp;b"></label>
<select name="tier"><option value="p" selected>P</option><option value="q">Q</option></select>
<textarea name="text">old &lt; text</textarea><input type="checkbox" name="on">
<input type="checkbox" name="off" checked>
<input type="password" name="word"></form></details>"""
HOSTILE = '"><script>alert(1)</script>'
VALUES = {"of": "2", "name": HOSTILE, "tier": "q", "text": f"</textarea>{HOSTILE}", "on": "on", "word": "secret"}


def test_refilled_form_has_the_sent_values_and_is_unfolded() -> None:
    filled = refill_form(PAGE, "/it", VALUES)
    read = Read(filled)
    other, first, second = (form.fields for form in read.forms)
    assert (other["name"], first["name"]) == ("o", "")
    assert second == {
        "form": "new", "of": "2", "name": HOSTILE, "tier": "q", "text": f"</textarea>{HOSTILE}", "word": ""
    }  # fmt: skip
    assert "script" not in read.tags
    assert ('name="on" checked' in filled, 'name="off" checked' in filled) == (True, False)
    assert (filled.count("<details open"), filled.index("<details open") > filled.index("First")) == (1, True)
    assert "x &amp; y" in filled


def test_refilled_form_shows_each_error_at_its_field_and_in_a_summary() -> None:
    errors = [FieldRefusal("name", "it is <b>"), FieldRefusal("emails.0", "no address")]
    filled = refill_form(PAGE, "/it", VALUES, errors)
    assert 'id="refused-name" aria-invalid="true" aria-describedby="refused-name-error"' in filled
    assert '</label><span class="error" id="refused-name-error">it is &lt;b&gt;</span>' in filled
    assert (
        '<li><a href="#refused-name">The &quot;name&quot;</a>: it is &lt;b&gt;</li><li>emails: no address</li>'
        in filled
    )
    assert refill_form(PAGE, "/nowhere", VALUES).count("<details open") == 0
