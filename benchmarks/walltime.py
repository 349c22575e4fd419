"""Wall time of `make demo`, `make test` and `make docs` in this checkout, with the environment already set up.

Writes results/walltime.json. Takes about as long as these together."""
import subprocess, time
from pathlib import Path
from common import save_results

if __name__ == '__main__':
    root,res = Path(__file__).resolve().parents[1],{}
    subprocess.run(['make', '.venv/bin/.installed'], cwd=root, check=True)
    for target in ('demo', 'docs', 'test'):
        start = time.perf_counter()
        subprocess.run(['make', target], cwd=root, check=True)
        res[f'{target}_s'] = round(time.perf_counter()-start)
    save_results('walltime', res)
