"What every benchmark shares: where results go, and what they say of the machine."
import json, os, platform, sys
from importlib.metadata import version
from pathlib import Path

results = Path(__file__).parent/'results'

def machine():
    "Kind of machine and versions, for the record"
    cpu = next((l.split(':')[1].strip() for l in open('/proc/cpuinfo') if l.startswith('model name')), platform.processor()) \
        if Path('/proc/cpuinfo').exists() else platform.processor()
    return dict(cpu=cpu, cores=os.cpu_count(), system=platform.system(), python=platform.python_version(),
                **{p: version(p) for p in ('superconv_fastai', 'fastai', 'torch', 'numpy')})

def save_results(name, data):
    "Write `data` and the machine to `results/name.json`"
    results.mkdir(exist_ok=True)
    path = results/f'{name}.json'
    path.write_text(json.dumps(dict(command=' '.join(['python', *(Path(a).name if i==0 else a for i,a in enumerate(sys.argv))]), machine=machine(), **data), indent=1) + '\n')
    print('wrote', path)
