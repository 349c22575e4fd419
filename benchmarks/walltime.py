"""Wall time of what a newcomer types: the environment, `make demo`, `make test`, `make docs`, in a fresh clone in a temporary folder.

Writes results/walltime.json. Takes about as long as these together."""
import subprocess, tempfile, time
from pathlib import Path
from common import save_results

if __name__ == '__main__':
    res = {}
    with tempfile.TemporaryDirectory() as tmp:
        subprocess.run(['git', 'clone', '-q', str(Path(__file__).resolve().parents[1]), f'{tmp}/clone'], check=True)
        for name,target in dict(setup='.venv/bin/.installed', demo='demo', test='test', docs='docs').items():
            start = time.perf_counter()
            subprocess.run(['make', target], cwd=f'{tmp}/clone', check=True)
            res[f'{name}_s'] = round(time.perf_counter()-start)
    save_results('walltime', res)
