"""Run every case of matrix.py and write what happened to data/works_with.json: `python tests/integration_table.py
[--rest | part of 'row / call' ...]`

With parts of names only those cases run, with --rest those without the expected result; what they give is put into
the table that is there."""
import json, os, platform, sys, tempfile, time, warnings
from importlib.util import find_spec
from pathlib import Path

tests = Path(__file__).resolve().parent
sys.path[:0] = [str(tests), str(tests.parent)]
warnings.filterwarnings('ignore')
import torch
torch.set_num_threads(1)
import fastai
from matrix import *

file = tests/'data'/'works_with.json'
versions = dict(python=platform.python_version(), torch=torch.__version__, fastai=fastai.__version__)

def write(cells):
    "The table, in the order of the matrix"
    rows = dict(applications=list(applications), options=list(options), kinds=list(kinds))
    words = list(dict.fromkeys([*refused.values(), *silent.values()]))
    of_row = {row:[c for r,c in cases if r==row] for row in sum(rows.values(), [])}
    table = {row:{call:cells[row].get(call) for call in its} for row,its in of_row.items() if row in cells}
    res = dict(command='python tests/integration_table.py', versions=versions, **rows, words=words, cells=table)
    file.write_text(json.dumps(res, indent=1)+'\n')

def chosen(row, call, names, cells):
    "Is this case to be run?"
    if names==('--rest',):
        was = cells.get(row, {}).get(call)
        return not (was and as_expected(row, call, was))
    return not names or any(n in f'{row} / {call}' for n in names)

def run_case(row, call):
    "What happened, and the seconds that it took"
    home,start = os.getcwd(),time.process_time()
    with tempfile.TemporaryDirectory() as tmp:
        os.chdir(tmp)
        try: got = outcome(row, call, Path(tmp))
        except Exception as e: got = f'fails: {type(e).__name__}: {e}'
        finally: os.chdir(home)
    return got.replace(f'{tmp}/', ''),time.process_time()-start # a folder of this run tells nobody anything

def main(*names):
    cells = json.loads(file.read_text())['cells'] if names and file.exists() else {}
    seconds,bad = {},[]
    for row,call in cases:
        if not chosen(row, call, names, cells): continue
        if row in needs and not find_spec(needs[row]): sys.exit(f'{row!r} needs the package {needs[row]}')
        got,took = run_case(row, call)
        seconds[row] = seconds.get(row, 0) + took
        print(f'{took:6.1f} s  {row} / {call}', flush=True)
        cells.setdefault(row, {})[call] = got
        write(cells)
        if not as_expected(row, call, got):
            bad.append((row, call))
            print(f'{row} / {call}: {got}\n    expected: {expected(row, call)}', file=sys.stderr, flush=True)
    by_time = sorted(seconds.items(), key=lambda o: -o[1])
    print(*(f'{s:6.1f} s  {row}' for row,s in by_time), f'{sum(seconds.values()):6.1f} s', sep='\n')
    if bad: sys.exit(f'{len(bad)} cases are not as expected')

if __name__=='__main__': main(*sys.argv[1:])
