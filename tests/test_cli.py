"The `superconv` command."
import inspect, json, os, subprocess, sys
from pathlib import Path
import pytest, torch
from fastai.basics import *
from superconv_fastai.cli import *
from fastai.callback.all import *
from superconv_fastai.compare import Comparison, ready_fits
from superconv_fastai.data import *
from fastcore.docments import docments
from superconv_fastai.lr_search import FoundLR
from superconv_fastai.recipes import RecipeRun, recipes
import superconv_fastai.cli as module

def refused(capsys, *args):
    "What a call that cannot be done prints: one line, status 2"
    with pytest.raises(SystemExit) as e: main(list(args))
    out,err = capsys.readouterr()
    assert e.value.code==2 and err.endswith('\n') and err.count('\n')==1 and 'Traceback' not in err, err
    return err

@pytest.fixture
def seen(monkeypatch):
    "A smaller network and fewer images for the demo; threads, seed and split of each learner it made"
    calls = []
    def learner(seed, valid='test'):
        calls.append((torch.get_num_threads(), seed, valid))
        set_seed(seed)
        (x,y),held = digits('train'),digits(valid)
        return Learner(tensor_dls((x[:200],y[:200]), held, 50, 'cpu'), nn.Sequential(nn.Flatten(), nn.Linear(64,10)),
                       loss_func=CrossEntropyLossFlat(), opt_func=partial(SGD, mom=.9), metrics=accuracy)
    monkeypatch.setattr(module, 'digits_learner', learner)
    return calls

def test_demo(seen, tmp_path, capsys):
    "The table says what the runs were; one thread while they run; steps of the search count"
    was = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        df = demo(n_epoch=2, seeds=2, out=tmp_path/'demo.png')
        assert torch.get_num_threads()==2
    finally: torch.set_num_threads(was)
    out = capsys.readouterr().out
    assert {n for n,_,_ in seen}=={1} and {s for _,s,_ in seen}=={0,1} and {v for _,_,v in seen}=={'test'}
    assert (tmp_path/'demo.png').stat().st_size>10_000 and all(k in out for k in demo_fits)
    assert sorted(zip(df.way, df.seed, df.epoch))==sorted((k,s,e) for k in demo_fits for s in (0,1) for e in (0,1))
    ends = df[df.epoch==1].groupby('way')
    assert all(f'{100*v:.1f}' in out for v in ends.accuracy.mean()) and (df.step==df.search+4*(df.epoch+1)).all()
    assert df.search.min()>20

def test_train(folder, tmp_path, capsys):
    "On a named data set: what is printed is what is written; nothing is written over"
    files = {'save':tmp_path/'net.pth', 'out':tmp_path/'report.json', 'figure':tmp_path/'search.png'}
    args = ['train', 'digits', '--epochs', '1', *(str(o) for k,v in files.items() for o in (f'--{k}', v))]
    main(args)
    said,told = capsys.readouterr().out,json.loads(files['out'].read_text())
    assert f"{told['lr_max']:.3g}" in said and told['n_steps']==20 and len(told['tried'])>1
    assert files['figure'].stat().st_size>5_000
    module.digits_learner(0).model.load_state_dict(torch.load(files['save']))
    assert 'does not exist yet' in refused(capsys, *args)

def test_train_on_a_folder(tmp_path, capsys):
    from learners import image_files
    main(['train', str(image_files()), '--epochs', '1', '--size', '32', '--bs', '8', '--resume', str(tmp_path/'run')])
    assert 'lr_max=' in capsys.readouterr().out and (tmp_path/'run').exists()

def test_train_refuses(tmp_path, capsys):
    assert 'a folder of images' in refused(capsys, 'train', 'nowhere')
    assert 'epochs=0' in refused(capsys, 'train', 'digits', '--epochs', '0')
    (tmp_path/'a').mkdir()
    for arch in ('net','get_model','detection'):
        assert f"arch='{arch}'" in refused(capsys, 'train', str(tmp_path), '--arch', arch)

def test_train_refuses_files_that_would_be_lost(tmp_path, capsys):
    "A name without an ending would get one after it was checked; two outputs with one name would leave one"
    def said(**files):
        return refused(capsys, 'train', 'digits', *(str(o) for k,v in files.items() for o in (f'--{k}', v)))
    (tmp_path/'fig.png').write_text('precious')
    assert 'ends with' in said(figure=tmp_path/'fig') and '.png' in said(figure=tmp_path/'fig.xyz')
    assert 'does not exist yet' in said(figure=tmp_path/'fig.png')
    assert 'another file than that of `save`' in said(save=tmp_path/'same', out=tmp_path/'same')
    assert 'another file than that of `resume`' in said(resume=tmp_path/'same', save=tmp_path/'.'/'same')
    assert [f.name for f in tmp_path.iterdir()]==['fig.png'] and (tmp_path/'fig.png').read_text()=='precious'

def test_figures_that_cannot_be_drawn_are_refused_before_the_runs(tmp_path, capsys):
    "matplotlib would write fig.png over another file, or fail at fig.xyz when all has run"
    for call in ('demo','compare'):
        for name in ('fig','fig.xyz'): assert 'ends with' in refused(capsys, call, '--out', str(tmp_path/name))

def test_numbers_that_json_does_not_know(folder, tmp_path, monkeypatch):
    "A cycle that diverged has an infinite loss: null in the file"
    def search(learn, *args, **kwargs):
        return FoundLR(.01, 'a test', 2.3, [dict(lr=.01, loss=1., steps=3), dict(lr=1., loss=math.inf, steps=3)])
    monkeypatch.setattr('superconv_fastai.superconverge.search_lr', search)
    module.train('digits', epochs=1, out=tmp_path/'report.json')
    def no(constant): raise ValueError(constant)
    told = json.loads((tmp_path/'report.json').read_text(), parse_constant=no)
    assert [o['valid_loss'] for o in told['tried']]==[1.,None]

def test_digits_learner():
    learn = module.digits_learner(0, 'tune')
    assert len(learn.dls.valid_ds)==297 and len(learn.dls.train)==20
    assert {o.item() for o in learn.dls.one_batch()[1]}<=set(range(10))
    a,b = (sum(float(p.detach().sum()) for p in module.digits_learner(s).model.parameters()) for s in (0,0))
    assert a==b

@pytest.mark.parametrize('bad', [dict(n_epoch=0), dict(n_epoch='x'), dict(seeds=0)])
def test_demo_refuses(bad, seen):
    "Before anything trains"
    threads = torch.get_num_threads()
    with pytest.raises(ValueError, match=next(iter(bad))): demo(**{**dict(n_epoch=1, seeds=1, out=None), **bad})
    assert torch.get_num_threads()==threads and not seen

def test_recipes(capsys):
    main(['recipes'])
    out = capsys.readouterr().out
    assert all(f'{name} ' in out for name in recipes) and len(out.splitlines())==len(recipes)+1
    main(['recipes', 'fig6b*'])
    assert len(capsys.readouterr().out.splitlines())==5
    main(['recipes', 'dawnbench'])
    out = capsys.readouterr().out
    assert 'wrn22' in out and '94.19' in out and 'crop+mirror' in out
    assert 'no recipe' in refused(capsys, 'recipes', 'nothing*')

def test_run(folder, tmp_path, capsys):
    main(['run', 'lenet-12', '--scale', '.004', '--seed', '3', '--data', str(folder), '--device', 'cpu', '--out',
          str(tmp_path/'run.json')])
    out = capsys.readouterr().out
    run = RecipeRun.load(tmp_path/'run.json')
    assert f'{run.accuracy:.2f} %' in out and '99.25 %' in out and 'at scale 0.004' in out and run.seed==3

def test_run_refuses(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('SUPERCONV_DATA', str(folder))
    assert 'fig1a' in refused(capsys, 'run', 'fig1')
    assert 'scale' in refused(capsys, 'run', 'lenet-12', '--scale', '2')
    assert 'scale' in refused(capsys, 'run', 'lenet-12', '--scale', 'half')
    assert 'lenet-12' not in refused(capsys, 'run')
    assert 'needs a GPU' in refused(capsys, 'run', 'inception-wd3e-6', '--device', 'cpu')
    assert 'imagenet' in refused(capsys, 'run', 'resnet50-wd1e-6', '--scale', '1e-5', '--device', 'cpu')
    assert str(tmp_path) in refused(capsys, 'run', 'fig1a', '--folder', str(tmp_path))
    assert 'folder that exists' in refused(capsys, 'run', 'lenet-12', '--scale', '.004', '--out',
                                           str(tmp_path/'no'/'x.json'))
    assert 'invalid choice' in refused(capsys, 'dance')

def test_no_download_is_one_line(tmp_path, capsys, monkeypatch):
    from urllib.error import URLError
    def fail(*args, **kwargs): raise URLError('no route')
    import superconv_fastai.data as data
    monkeypatch.delenv('SUPERCONV_DATA', raising=False)
    monkeypatch.setattr(data, 'untar_data', fail)
    err = refused(capsys, 'run', 'fig1a')
    assert 'no route' in err and 'SUPERCONV_DATA' in err

def test_cli_fits_are_the_ready_ones():
    assert list(cli_fits.values())==list(ready_fits.values()) and all(',' not in k and ' ' not in k for k in cli_fits)

def test_compare(seen, tmp_path, capsys):
    "A second call finds every run in the logs"
    log = tmp_path/'log.jsonl'
    args = ['compare', '--fits', 'fit_superconv,multistep', '--n_epoch', '1', '--seeds', '2', '--lrs', '.03,.1,.3',
            '--path', str(log), '--out', str(tmp_path/'f.png')]
    main(args)
    first,lines = capsys.readouterr().out,log.read_text().splitlines()
    assert len(lines)==1+2*2 and (tmp_path/'f.png').exists() and 'fit_superconv' in first and 'multistep' in first
    stamp = log.read_bytes(),Path(f'{log}.tune').read_bytes()
    main(args)
    assert (log.read_bytes(),Path(f'{log}.tune').read_bytes())==stamp
    assert capsys.readouterr().out==first[first.index('\ndigits:'):]

def test_compare_on_images(folder, capsys):
    write = dict(data='mnist', fits=['fit_one_cycle'], n_epoch=[1], seeds=1, lrs=[.01,.03,.1], n_train=100,
                 folder=folder, device='cpu')
    res = compare(**write)
    assert res.ends.step.tolist()==[1] and 'mnist' in capsys.readouterr().out

def test_compare_refuses(folder, capsys):
    assert 'fit_one_cycle' in refused(capsys, 'compare', '--fits', 'hope')
    assert 'n_epoch' in refused(capsys, 'compare', '--n_epoch', '0')
    assert 'n-epoch' in refused(capsys, 'compare', '--n_epoch', 'many')
    assert 'lrs' in refused(capsys, 'compare', '--lrs', '.1')
    assert "data='imagenet'" in refused(capsys, 'compare', '--data', 'imagenet')

def test_interrupt(monkeypatch, capsys):
    def stop(**kwargs): raise KeyboardInterrupt
    monkeypatch.setitem(module.commands, 'demo', stop)
    with pytest.raises(SystemExit) as e: main(['demo'])
    assert e.value.code==130 and capsys.readouterr().err=='superconv: interrupted\n'

@pytest.mark.parametrize('spelling', ['--n-epoch','--n_epoch','--n_epoch=2','--n-epoch=2'])
def test_options_may_be_spelled_both_ways(monkeypatch, spelling):
    seen = {}
    def train(n_epoch:int=1, n_train:int=3): seen.update(n_epoch=n_epoch, n_train=n_train)
    monkeypatch.setitem(module.commands, 'demo', train)
    main(['demo', spelling, *([] if '=' in spelling else ['2'])])
    assert seen==dict(n_epoch=2, n_train=3)

def test_values_with_underscores_stay(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setitem(module.commands, 'demo', lambda out='': seen.update(out=out))
    for args in (['--out', 'a_b.png'], ['--out=a_b.png']):
        main(['demo', *args])
        assert seen.pop('out')=='a_b.png'

@pytest.mark.parametrize('name', list(module.commands))
def test_help_has_every_argument(capsys, name):
    "Names, defaults and help stand in the signature alone"
    with pytest.raises(SystemExit) as e: main([name, '--help'])
    out = ' '.join(capsys.readouterr().out.split())
    assert e.value.code==0
    for k,v in docments(module.commands[name], full=True, returns=False).items():
        shown = k if v.default is inspect.Parameter.empty or k=='pattern' else '--'+k.replace('_', '-')
        assert f'{shown} ' in out and ' '.join(v.docment.split()) in out, k
        if v.default not in (None, inspect.Parameter.empty): assert f'(default: {v.default})' in out, k

@pytest.mark.parametrize('args', [['--help'], ['recipes'], ['recipes','fig1a']], ids=' '.join)
def test_nothing_of_other_libraries_is_printed(args):
    "Whatever the warnings of libraries that load: stderr stays empty"
    env = {k:v for k,v in os.environ.items() if k!='PYTHONWARNINGS'}
    r = subprocess.run([sys.executable, '-m', 'superconv_fastai', *args], capture_output=True, text=True, env=env)
    assert r.returncode==0 and r.stderr=='' and r.stdout.count('\n')>5

def test_as_a_process(folder, tmp_path):
    "`python -m superconv_fastai`"
    args = ['run', 'lenet-12', '--scale', '.002', '--data', str(folder), '--device', 'cpu', '--out',
            str(tmp_path/'r.json')]
    r = subprocess.run([sys.executable, '-W', 'ignore', '-m', 'superconv_fastai', *args], capture_output=True,
                       text=True)
    assert r.returncode==0 and 'published' in r.stdout, r.stderr
    assert json.loads((tmp_path/'r.json').read_text())['scale']==.002
