"What every benchmark shares: where results go, and what they say of the machine."
import json, os, platform, sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

results = Path(__file__).parent/'results'

def processor():
    "The name of the processor"
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    return next((o.split(':')[1].strip() for o in lines if o.startswith('model name')), platform.processor())

def version_of(package):
    try: return version(package)
    except PackageNotFoundError: return 'not installed' # run from its folder

def machine():
    "Kind of machine and versions, for the record"
    versions = {p: version_of(p) for p in ('superconv_fastai','fastai','torch','numpy')}
    return dict(cpu=processor(), cores=os.cpu_count(), system=platform.system(), python=platform.python_version(),
                **versions)

def save_results(name, data):
    "Write `data`, the command and the machine to `results/name.json`"
    results.mkdir(exist_ok=True)
    path = results/f'{name}.json'
    command = ' '.join(['python', Path(sys.argv[0]).name, *sys.argv[1:]])
    path.write_text(json.dumps(dict(command=command, machine=machine(), **data), indent=1) + '\n')
    print('wrote', path)
