"All public calls in two processes of accelerate, on the CPU: the same answers everywhere, no deadlock, one voice"
import json, os, re, subprocess, sys
from itertools import product
from pathlib import Path
import pytest

pytest.importorskip('accelerate')
tests = Path(__file__).parent

def launch(*args, timeout=1200): # a minute where nothing else runs
    "`accelerate launch` with two processes; what they print"
    options = dict(num_processes=2, num_machines=1, mixed_precision='no', dynamo_backend='no',
                   num_cpu_threads_per_process=1, main_process_port=0)
    # its --cpu is for one process
    cmd = [sys.executable, '-m', 'accelerate.commands.launch', '--multi_gpu',
           *(f'--{k}={v}' for k,v in options.items()), str(tests/'cpu_ranks.py'), *map(str, args)]
    env = {**os.environ, 'PYTHONPATH':os.pathsep.join([str(tests.parent), os.environ.get('PYTHONPATH', '')]),
           'OMP_NUM_THREADS':'1', 'CUDA_VISIBLE_DEVICES':'', 'ACCELERATE_USE_CPU':'true'}
    p = subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
                         start_new_session=True)
    try: out,err = p.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, 9)
        out,err = p.communicate()
        pytest.fail(f'deadlock: still running after {timeout} s\n{out[-2000:]}\n{err[-4000:]}')
    assert p.returncode==0, out[-2000:]+err[-6000:]
    return out

@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    "What each of two processes got from every public call"
    path = tmp_path_factory.mktemp('ranks')
    launch(tests/'all_ranks.py', path)
    return [json.loads((path/f'rank{r}.json').read_text()) for r in range(2)]

windows = [f'accumulation, {n} items, {n_acc=}, {drop_last=}' for n,n_acc,drop_last in ((250,64,False), (202,40,False),
    (250,64,True), (100,32,True))]
calls = ['fit_superconv', 'accumulation', *windows, 'whole batch, all', 'whole batch, one',
         'curvature_lr_find, one process has NaN', 'lr_range_test, one process has NaN', 'lr_range_test',
         'HessianFreeLR paper', 'HessianFreeLR secant', 'HessianFreeLR probe', 'curvature_lr', 'curvature_lr_find',
         'regularizers', 'balance_regularization', 'balance_regularization, resumed', 'superconverge',
         'superconverge, one process has NaN', 'compare_fits', 'compare_fits, resumed']

@pytest.mark.parametrize('call', calls)
def test_every_process_gets_the_same(ranks, call):
    a,b = ranks
    assert a[call]==b[call]
    for k in ('untouched','observes','kept','as_fit'): assert a[call].get(k, True), f'not {k}'

def test_the_schedule_is_that_of_the_steps_of_all_processes(ranks):
    fit = ranks[0]['fit_superconv']
    assert fit['lr']==fit['expected'] and fit['restored']==[.05,.9]
    assert ranks[0]['accumulation']['lr']==ranks[0]['accumulation']['expected']

@pytest.mark.parametrize('case', windows)
def test_uneven_windows_are_planned(ranks, case):
    "The plan has the steps that the optimizer takes, also before a DistributedDL knows its number of items"
    got = ranks[0][case]
    assert got['steps'][0]==got['steps'][1] and got['lr']==got['expected']

def test_batches_of_each_process(monkeypatch):
    "Their number and sizes are known before the first epoch, and the same after it"
    from fastai.data.load import DataLoader
    from fastai.distributed import DistributedDL
    from superconv_fastai.loaders import batch_sizes
    monkeypatch.setattr(DistributedDL, '_broadcast', lambda self, t, rank: t)
    for n,bs,ranks,drop_last in product((4,7,8,12,13,23,24,25), (1,2,3,4,8), (1,2,3), (False,True)):
        if n < bs*ranks: continue # a process without a batch
        dl = DistributedDL(DataLoader(range(n), bs=bs, drop_last=drop_last, device='cpu'), rank=ranks-1,
                           world_size=ranks)
        before,sizes = batch_sizes(dl),[len(b) for b in dl]
        assert before==batch_sizes(dl)==(len(sizes), bs, sizes[-1]), (n, bs, ranks, drop_last)
        assert {*sizes[:-1]} <= {bs}

def test_estimates_are_those_of_the_whole_batch(ranks):
    "Two processes with batches of 16 find what one finds with their batches in one, layer by layer"
    a,b = ranks[0]['whole batch, all'],ranks[0]['whole batch, one']
    assert a.pop('layers')==b.pop('layers') and a.keys()==b.keys()
    for k in a: assert len(a[k])>1 and [v is None for v in a[k]]==[v is None for v in b[k]] and any(a[k]), k
    for k in a:
        assert [v for v in a[k] if v is not None]==pytest.approx([v for v in b[k] if v is not None], rel=2e-3,
            abs=3e-5), k

def test_calls_are_those_of_the_script(ranks): assert set(ranks[0])=={*calls, 'printed'}

def test_one_voice(ranks):
    "The first process shows bars and tables, another one prints nothing"
    assert 'valid_loss' in ranks[0]['printed'] and ranks[1]['printed']==''

def test_example():
    "examples/distributed.py: the first process speaks, once"
    out = launch(tests.parent/'examples'/'distributed.py')
    assert out.count('lr_max=')==1 and len(re.findall(r'^accuracy 0\.\d+$', out, re.M))==1
