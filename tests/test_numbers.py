"The measured numbers of README, the home page and the lessons are those of the files in `benchmarks/results`"
import json, re, sys
from pathlib import Path
import numpy as np, pytest

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root/'nbs'/'tutorials'))
from stored_results import StoredBalance, difference, interval, load, unpack

LESSONS = 'understanding find_the_lr train transfer_learning balance watch_curvature compare_fairly scale_up'.split()

# What a measurement looks like in a sentence
measurement = re.compile(r'\d[\d.,]*\s?(?:%|points?\b|times\b|decades\b|µs|ms\b)|factor of [\d.]+')
# Numbers with a unit that are no measurement: a definition, a setting, arithmetic, or the page's own output,
# which its cells hold
no_measurement = re.compile(
    '|'.join(
        ['95 % interval', 'after 25 % and 30 % of the steps, instead of 45 %', 'For each factor of 10',
         'almost 30 points better',
         'that is 0.3 % of a weight; at 0.3 it is 30 %']
    )
)

def cells(page): return json.loads((root/'nbs'/f'{page}.ipynb').read_text())['cells']

def prose(page):
    "The sentences of a page: its markdown without code, addresses and line ends"
    text = '\n'.join(''.join(c['source']) for c in cells(page) if c['cell_type']=='markdown')
    text = re.sub(r'```.*?```', '', text, flags=re.S)
    return re.sub(r'\s+', ' ', re.sub(r'\]\([^)]*\)', ']', text))

def claims():
    "Each measured number in the prose of the lessons, with the words around it: (page, text)"
    study = StoredBalance()
    v,lo,hi = (10**-o for o in interval(sum((study.slopes(t, 'loss') for t in study.tasks), [])))
    scope = f"(mean of the 15 seeds' slopes, 95 % interval {hi:.0f} to {lo:.0f}, for these data sets)"
    yield 'understanding', f'it fell by a factor of {v:.0f} {scope}'

    ratios = _lr_find_ratios('valley')
    yield 'understanding', f'was a median {1/np.median(ratios):.1f} times below the best constant LR'

    cifar = unpack(load('schedules_cifar')['runs'])
    gains = [difference(cifar, (a,6), ('multistep',6)) for a in cifar.arms if a not in ('multistep','linear to zero')]
    assert all(low>0 for _,low,_ in gains)
    low,high = (f(g[0] for g in gains) for f in (min,max))
    yield 'understanding', f'the cycles beat tuned classical steps by {low:.1f} to {high:.1f} points'

    rows = load('live_range_test_adam')['rows']
    behind = [max(map(np.mean, r['grid'].values()))-np.mean(r['superconv']) for r in rows]
    yield 'find_the_lr', f'ended {min(behind):.1f} to {max(behind):.1f} points below the best of four LRs'
    lost = [r['range test'] for r in load('zero_tuning')['confirmation']['cells'] if r['cell'] in transformers]
    yield 'find_the_lr', f'lost {min(lost):.0f} and {max(lost):.0f} points there'

transformers = 'cifar transformer adam 7','series TSTPlus adam 20'

def _lr_find_ratios(suggestion):
    "The suggestions of `lr_find` over the best constant LR of their setting"
    study = load('estimator_truth')
    runs = {k:r for k,r in study['runs'].items() if k.startswith('finders ')}
    return [r[suggestion]/study['truth'][k.split()[1]]['best'] for k,r in runs.items()]

def test_lessons_say_what_was_measured():
    for page,text in claims():
        assert re.sub(r'`[^`]*`', '`x`', text) in re.sub(r'`[^`]*`', '`x`', prose(f'tutorials/{page}')), (page, text)

@pytest.mark.parametrize('page', LESSONS)
def test_no_other_number_is_claimed(page):
    "A number with a unit stands in a claim above, or is known to be no measurement"
    text = prose(f'tutorials/{page}')
    for _,t in [c for c in claims() if c[0]==page]: text = text.replace(t, '')
    assert not measurement.findall(no_measurement.sub('', text))

def test_finders_lose_what_the_lesson_says():
    names = {'superconverge':'`superconverge`', 'probe':'`curvature_lr_find`', 'range test':'`lr_range_test`',
             **{k:f"`lr_find`'s `{k}`" for k in ('minimum','steep','valley')}}
    arms = [r for r in load('zero_tuning')['confirmation']['arms'] if r['arm'] in names]
    rows = ' '.join(f"| {names[r['arm']]} | {r['mean']:.1f} |" for r in sorted(arms, key=lambda r: r['mean']))
    assert len(arms)==len(names) and rows in prose('tutorials/find_the_lr')

def test_networks_that_cannot_super_converge():
    "All but one train at `lr_max`"
    rows = [r for r in load('live_range_test')['rows'] if not r['batch']['feasible']]
    failed = [(r['data'],r['net']) for r in rows if np.mean(r['superconv'])<np.mean(r['small_acc'])-5]
    assert len(rows)==5 and failed==[('CIFAR-10','ResNet-8 without BatchNorm')]

def test_home_page_has_its_numbers_from_the_files(monkeypatch):
    "Its prose has no measured number; those of its table come out again when the cell runs"
    assert not measurement.findall(no_measurement.sub('', prose('index')))
    reads = [c for c in cells('index') if 'stored_results' in ''.join(c['source'])]
    assert reads
    def unlinked(text): return re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', text) # nbdev links symbols
    readme = unlinked((root/'README.md').read_text())
    for c in reads:
        *body,last = ''.join(c['source']).split('\nMarkdown(')
        env = {}
        exec('\n'.join(body), env)
        new = eval(f'Markdown({last}', env).data
        assert new == ''.join(c['outputs'][0]['data']['text/markdown'])
        assert all(unlinked(line) in readme for line in new.splitlines()[2:])

def test_readme_is_short(): assert len((root/'README.md').read_text().split()) <= 700

def test_home_says_what_was_run_at_the_papers_size():
    "airbench94 is no network of the papers"
    assert {r['recipe'] for r in load('recipes_whole')['runs']}-{'cifar94'}=={'lenet-12'}
