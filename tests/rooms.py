"""Hold the rooms of the package to their rules; `python tests/rooms.py` prints what breaks one, and fails.

A room is a module. `FLOORS` says what each may import: rooms on lower floors, and none on its own. The page
*Contributing* draws it."""
import ast, re, sys
from collections import defaultdict
from pathlib import Path

root = Path(__file__).resolve().parents[1]
package = root/'superconv_fastai'

FLOORS = [
    'core show events',                      # argument checks and files; how a result is shown
    'optim loaders metrics state runs', # what is known of optimizers, data loaders, metrics; putting back; many runs
    'schedule snapshots gradients data models',
    'cycle dropout curvature',          # the callback that trains with a cycle; what drops; the Hessian-free estimate
    'checkpoint regularization curvature_lr',
    'fit',                              # learn.fit_superconv
    'range_test balance compare lr_search',
    'superconverge recipes',            # the call that tunes nothing; the papers' experiments
    'cli all']

PUBLIC = """
    Audit Balance BatchStatistics Choice Comparison CriticalMomentum CurvatureLR Diverged GhostBatchNorm2d
    HessianFreeLR LRProbe OneCycleScheduler PadChannels RandomCropMirror RangeTest Recipe RecipeRun Residual
    Schedule Standardize StepPlan SuperconvCheckpoint SuperconvergeReport TensorDL Tuned Verdict airbench94
    compare_fits decay_rate densenet40 digits digits_dls find_recipe fit_linear fit_multistep fit_recipe
    ghost_norm he_init hessian_free_lr image_dls image_folder_dls imagenet_model learner_of lenet load_images
    momentum_cycle n_params nesterov_step nets noise_floor one_cycle paper_decays plan_steps policies
    ready_fits recipe_table recipes resnet8 resnet_cifar run_recipe tensor_dls three_layer tune_lr undisturbed
    verdict wide_resnet wide_resnet32
""".split()

files = [p for p in sorted(package.glob('*.py')) if p.stem not in ('__init__', '__main__', '_modidx')]
modules = {p.stem: ast.parse(p.read_text()) for p in files}

def private(name): return name[0] == '_' and name[:2] != '__'

def imports(tree):
    "`(module, names)` of each import from this package, those inside functions too"
    for n in ast.walk(tree):
        if isinstance(n, ast.ImportFrom):
            parts = (n.module or '').split('.')
            if n.level or parts[0] == package.name:
                inner = parts if n.level else parts[1:]
                if inner and inner[0]: yield inner[0], [a.name for a in n.names]
                else: yield from ((a.name, []) for a in n.names)
        elif isinstance(n, ast.Import):
            yield from ((a.name.split('.')[1], []) for a in n.names if a.name.startswith(f'{package.name}.'))

def arrows():
    "Imports go down: no circle, and no private name"
    floor = {m:i for i,row in enumerate(FLOORS) for m in row.split()}
    yield from (f'{m} has no floor in FLOORS' for m in modules if m not in floor)
    for m,tree in modules.items():
        for other,names in imports(tree):
            if other in floor and m in floor and floor[other] >= floor[m]:
                yield f'{m} imports {other}, which is not below it'
            yield from (f'{m} takes the private name {n} from {other}' for n in names if private(n))
        for n in ast.walk(tree):
            of_module = isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id in modules
            if of_module and private(n.attr):
                yield f'{m} uses {n.value.id}.{n.attr}'

def defined(tree):
    for n in tree.body:
        if isinstance(n, (ast.FunctionDef, ast.ClassDef)):
            if not any(getattr(d, 'id', '') == 'patch' for d in n.decorator_list): yield n.name
        elif isinstance(n, ast.Assign):
            yield from (o.id for t in n.targets for o in ast.walk(t) if isinstance(o, ast.Name))

def names():
    "A private name stands for one thing in the whole package; `all` has the public names and no helper"
    homes = defaultdict(set)
    for m,tree in modules.items():
        for n in defined(tree):
            if private(n): homes[n].add(m)
    yield from (f"{n} is defined in {' and '.join(sorted(ms))}" for n,ms in sorted(homes.items()) if len(ms) > 1)
    space = {}
    exec(f'from {package.name}.all import *', space)
    public = {k for k in space if not k.startswith('__')}
    yield from (f'{package.name}.all has {n}, which is not in PUBLIC' for n in sorted(public - set(PUBLIC)))
    yield from (f'{package.name}.all lacks {n}' for n in sorted(set(PUBLIC) - public))

def exported():
    "File and text of each exported cell"
    import json
    for p in sorted((root/'nbs').glob('*.ipynb')):
        for c in json.loads(p.read_text())['cells']:
            s = ''.join(c['source'])
            if c['cell_type'] == 'code' and re.match(r'#\|\s*export', s): yield f"nbs/{p.name}#{c['id']}", s

def sources():
    yield from exported()
    for d in ('tests', 'benchmarks', 'docs', 'examples', 'nbs'):
        for p in sorted((root/d).rglob('*.py')): yield str(p.relative_to(root)), p.read_text()

def joined(s):
    "Numbers of the lines on which `;` joins statements"
    import io, tokenize
    try: tokens = list(tokenize.generate_tokens(io.StringIO(s).readline))
    except (tokenize.TokenError, SyntaxError, IndentationError): return []
    return sorted({t.start[0] for t in tokens if t.type == tokenize.OP and t.string == ';'})

def lines():
    "Lines of at most 120 characters, a statement to a line, functions of at most 50 lines, exported cells of about 60"
    for where,s in sources():
        ls = s.splitlines()
        yield from (f'{where}:{i}: {len(l)} characters' for i,l in enumerate(ls, 1) if len(l) > 120)
        yield from (f'{where}:{i}: statements joined by ;' for i in joined(s))
        if '#' in where and len(ls) > 66: yield f'{where}: an exported cell of {len(ls)} lines'
        for n in ast.walk(ast.parse(s)):
            if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)) and n.end_lineno - n.lineno >= 50:
                yield f'{where}: {n.name} has {n.end_lineno - n.lineno + 1} lines'

def main(rules):
    bad = [o for rule in rules for o in rule()]
    print('\n'.join(bad) if bad else 'The rooms keep their rules.')
    return bool(bad)

if __name__ == '__main__':
    known = dict(arrows=arrows, names=names, lines=lines)
    sys.exit(main([known[o] for o in sys.argv[1:] or known]))
