"The cases of matrix.py, and what the docs say about them."
import json, re

import pytest
from matrix import *

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    'row,call', [pytest.param(*o, marks=[pytest.mark.slow] * is_slow(*o), id=' / '.join(o)) for o in cases]
)
def test_works_with(row, call, tmp_path, monkeypatch):
    if row in needs: pytest.importorskip(needs[row])
    monkeypatch.chdir(tmp_path)
    got = outcome(row, call, tmp_path)
    assert as_expected(row, call, got), got

# ---- what the docs say ----

def test_the_table_in_the_docs_is_this_matrix():
    "Its cells are the cases here, each with what is expected here; `python tests/integration_table.py` writes it"
    table = json.loads((root/'tests'/'data'/'works_with.json').read_text())
    for name,rows in dict(applications=applications, options=options, kinds=kinds).items():
        assert table[name]==list(rows)
    assert table['words']==list(dict.fromkeys([*refused.values(), *silent.values()]))
    assert {(row,call) for row,o in table['cells'].items() for call in o}==set(cases)
    assert [(row,call) for row,call in cases if not as_expected(row, call, table['cells'][row][call])]==[]

def test_every_day_has_every_row_and_every_call():
    quick = [(row,call) for row,call in cases if not is_slow(row, call)]
    assert {r for r,_ in quick}=={*applications, *options, *kinds} and {c for _,c in quick}=={*of_kinds}

def test_every_exception_is_a_case(): assert {*refused, *silent} <= set(cases)

def test_every_trap_has_a_test_or_a_reason():
    cells = json.loads((root/'nbs'/'tutorials'/'fastai_traps.ipynb').read_text())['cells']
    rows = [l for c in cells for l in ''.join(c['source']).splitlines() if re.match(r'\| \d+ \|', l)]
    lines = [[o.strip() for o in l.strip().strip('|').split(' | ')] for l in rows]
    known = {n for f in (root/'tests').glob('test_*.py') for n in re.findall(r'^def (test_\w+)', f.read_text(), re.M)}
    assert [int(l[0]) for l in lines]==list(range(1, len(lines)+1)) and len(lines)>=45
    for number,trap,here,*shown in lines:
        names = re.findall(r'`(test_\w+)`', ' '.join(shown))
        assert set(names) <= known and len(here)>10, f'trap {number}'
        assert names or 'nothing can go wrong' in here, f'trap {number} has neither a test nor a reason'
