"""Run every case of test_integration.py and write what happened to data/works_with.json: `python tests/integration_table.py [--rest | part of 'row / call' ...]`

With parts of names only those cases run, with --rest those without the expected result, and what they give is put into the table that is there."""
import json, os, platform, sys, tempfile, time, warnings
from importlib.util import find_spec
from pathlib import Path

tests = Path(__file__).resolve().parent
sys.path[:0] = [str(tests), str(tests.parent)]
warnings.filterwarnings('ignore')
import torch
torch.set_num_threads(1)
import fastai
from test_integration import *

def main(*names):
    file = tests/'data'/'works_with.json'
    cells = json.loads(file.read_text())['cells'] if names and file.exists() else {}
    seconds,bad,home = {},[],os.getcwd()
    versions = dict(python=platform.python_version(), torch=torch.__version__, fastai=fastai.__version__)
    def write():
        table = {row:{call:cells[row].get(call) for call in calls} for row in (*applications, *options) if row in cells}
        file.write_text(json.dumps(dict(command='python tests/integration_table.py', versions=versions, applications=list(applications), options=list(options), words=list(dict.fromkeys(refused.values())), cells=table), indent=1)+'\n')
    for row,call in cases:
        if names==('--rest',):
            if (was := cells.get(row, {}).get(call)) and as_expected(row, call, was): continue
        elif names and not any(n in f'{row} / {call}' for n in names): continue
        if row in needs and not find_spec(needs[row]): sys.exit(f'{row!r} needs the package {needs[row]}')
        with tempfile.TemporaryDirectory() as tmp:
            os.chdir(tmp)
            start = time.process_time()
            try: got = outcome(row, call, Path(tmp))
            except Exception as e: got = f'fails: {type(e).__name__}: {e}'
            seconds[row] = seconds.get(row, 0) + (took := time.process_time()-start)
            os.chdir(home)
        print(f'{took:6.1f} s  {row} / {call}', flush=True)
        cells.setdefault(row, {})[call] = got
        write()
        if not as_expected(row, call, got):
            bad.append((row, call))
            print(f'{row} / {call}: {got}\n    expected: {expected(row, call)}', file=sys.stderr, flush=True)
    print(*(f'{s:6.1f} s  {row}' for row,s in sorted(seconds.items(), key=lambda o: -o[1])), f'{sum(seconds.values()):6.1f} s', sep='\n')
    if bad: sys.exit(f'{len(bad)} cases are not as expected')

if __name__=='__main__': main(*sys.argv[1:])
