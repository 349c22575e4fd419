"The scripts in benchmarks/: those that cannot run whole here run small."
import ast, json, sys
from pathlib import Path
import pytest, torch
root = Path(__file__).parents[1]
sys.path.insert(0, str(root/'benchmarks'))
later = 'live_range_test_adam.py', # in the making
scripts = sorted(p for p in (root/'benchmarks').glob('*.py') if p.name not in later)

@pytest.mark.parametrize('path', scripts, ids=lambda p: p.name)
def test_scripts_read_at_normal_speed(path):
    "Lines of at most 120 characters, functions of at most 50 lines, a docstring on top"
    text = path.read_text()
    assert max(map(len, text.splitlines()))<=120
    tree = ast.parse(text)
    long = [f.name for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and f.end_lineno-f.lineno>=50]
    assert not long and ast.get_docstring(tree)

# ---- without a GPU: the rules of the run of eight minutes ----

class Clock:
    "A deadline by a clock that only the test moves"
    def __init__(self, seconds): self.seconds = seconds
    def left(self): return self.seconds

@pytest.fixture
def gpu(monkeypatch):
    "benchmarks/gpu.py with runs that take no time: 100 s each, by its own estimate"
    import gpu
    monkeypatch.setattr(gpu, 'seconds_of', lambda recipe, device: 100.)
    monkeypatch.setattr(gpu, 'trained', lambda *args: dict(status='finished', accuracy=94.))
    return gpu

def test_a_run_that_does_not_fit_is_not_begun_and_is_named(gpu):
    log = gpu.RunLog('study')
    skipped = gpu.run_part('cycle', log, Clock(99), .01, 'cpu')
    assert skipped==[(('cycle','cycle',3.,0), 100)] and not log.runs
    assert gpu.run_part('cycle', log, Clock(101), .01, 'cpu')==[] and list(log.runs)==[('cycle','cycle',3.,0)]

def test_what_is_in_the_log_is_not_repeated(gpu, tmp_path, monkeypatch):
    with gpu.RunLog('study', tmp_path/'log.jsonl') as log: gpu.run_part('cifar94', log, Clock(1000), .01, 'cpu')
    n = len((tmp_path/'log.jsonl').read_text().splitlines())
    monkeypatch.setattr(gpu, 'seconds_of', lambda recipe, device: pytest.fail('a run is planned again'))
    with gpu.RunLog('study', tmp_path/'log.jsonl') as log: gpu.run_part('cifar94', log, Clock(1000), .01, 'cpu')
    assert n==1+5==len((tmp_path/'log.jsonl').read_text().splitlines())

def test_schedules_on_the_gpu_are_whole(gpu):
    "The baseline of figure 1a has its falls within its 10,000 steps"
    (recipe,*_), = gpu.multistep_runs(1).values()
    lr = recipe.schedules()[0]
    assert recipe.steps == 10_000 and [round(lr(s), 6) for s in (0, 6249, 6250, 8749, 8750, 9999)] == [
        .35, .35, .035, .035, .0035, .0035]

def test_a_recipe_that_was_interrupted_goes_on(tmp_path, monkeypatch):
    "Its checkpoint stays until its line is in the log"
    import recipes_whole
    def run(name, seed, scale=1., resume=None):
        if not resume.exists():
            resume.touch()
            raise KeyboardInterrupt
        return dict(accuracy=94., epochs=[], status='finished', seconds=1)
    for k,v in dict(run=run, results=tmp_path, save_results=lambda *args: None).items():
        monkeypatch.setattr(recipes_whole, k, v)
    monkeypatch.setattr(sys, 'argv', ['recipes_whole.py', '--names', 'cifar94', '--seeds', '1'])
    with pytest.raises(KeyboardInterrupt): recipes_whole.main()
    assert (tmp_path/'cifar94_0.pth').exists()
    recipes_whole.main()
    log, = tmp_path.iterdir()
    assert log.name=='recipes_whole.jsonl' and '"accuracy": 94.0' in log.read_text()

@pytest.mark.slow
def test_all_of_it_runs_small_on_the_cpu(tmp_path, monkeypatch):
    "Every part, with narrow networks on made-up images"
    import gpu
    from dataset_files import write_cifar
    from superconv_fastai.recipes import nets
    from superconv_fastai.models import airbench94, resnet8
    write_cifar(tmp_path, 10)
    monkeypatch.setenv('SUPERCONV_DATA', str(tmp_path))
    monkeypatch.setitem(nets, 'airbench94', lambda dropout, **kwargs: airbench94(width=.05, **kwargs))
    monkeypatch.setitem(nets, 'resnet56', lambda dropout, **kwargs: resnet8(4, **kwargs))
    log = gpu.main(['--scale', '0.001', '--log', str(tmp_path/'log.jsonl'), '--minutes', '10'])
    assert len(log.runs)==5+6+1+1+1 and all(r['device'] and r['seconds']>0 for r in log.runs.values())
    rows = [json.loads(l) for l in (tmp_path/'log.jsonl').read_text().splitlines()[1:]]
    assert [r['key'][0] for r in rows]==['cifar94']*5+['cycle','multistep','cost']+['rivals']*6
    cost = next(r for r in rows if r['key']==['cost'])
    assert all(r['status']=='finished' and len(r['curve'])>0 for r in rows if r is not cost)
    assert set(cost['added_ms'])==set(gpu.costs)

@pytest.mark.slow
def test_rivals_of_cifar94_differ_in_schedule_and_lr_alone(tmp_path, monkeypatch):
    "Each arm at each LR, from the same weights; nothing is written at a small scale"
    import gpu, cifar94_rivals as rivals
    from dataset_files import write_cifar
    from superconv_fastai.recipes import nets
    write_cifar(tmp_path, 10)
    monkeypatch.setenv('SUPERCONV_DATA', str(tmp_path))
    monkeypatch.setattr(rivals, 'results', tmp_path)
    monkeypatch.setitem(nets, 'airbench94', nets['airbench94']) # restored at the end
    lrs,weights = [],[]
    def spied(recipe, seed, device, *args):
        lrs.append((recipe.lr_max, recipe.lr_max/recipe.lr_min))
        weights.append([round(p.sum().item(), 3) for p in gpu.fast_learner(recipe, seed, device).model.parameters()])
        return gpu.trained(recipe, seed, device, *args)
    monkeypatch.setattr(rivals, 'trained', spied)
    log = rivals.main(['--scale', '0.001', '--width', '0.05', '--jobs', '1', '--lrs', '1,2'])
    assert [k[:3] for k in log.runs]==[(.05,arm,lr) for lr in (1.,2.) for arm in rivals.fits]
    assert all(r['status']=='finished' and r['curve'] for r in log.runs.values())
    assert lrs==[(lr,pytest.approx(5)) for lr in (1.,2.) for _ in rivals.fits] and weights==[weights[0]]*6
    assert not (tmp_path/'cifar94_rivals.jsonl').exists()
