"Audit, advice, temporary reduction, and the search for weight decay and dropout."
import json, multiprocessing, re, threading, time
from copy import deepcopy
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from torchvision.ops import StochasticDepth
from fastai.tabular.all import TabularModel
from fastai.text.models.awdlstm import AWD_LSTM
from fastai.vision.augment import aug_transforms, Brightness, Flip
from fastai.losses import FocalLossFlat, LabelSmoothingCrossEntropyFlat
from fastai.basics import *
from fastai.callback.all import *
from fingerprints import fingerprint, same
from small_learners import busy_kinds as kinds, busy_learner, fit_dls, groups, make_learner, ridge
from superconv_fastai.all import *
from superconv_fastai.runs import seed_all
from superconv_fastai.balance import _contenders, _critical, _left, _margin, _race, _run_rates, run_cycle
from superconv_fastai.dropout import find_dropouts
from superconv_fastai.optim import decay_kind, group_decay_rate
import superconv_fastai.balance as module
import reference as ref
from fastai import optimizer as fo
from fastai.callback.rnn import RNNRegularizer

def rows(learn, kind, **kwargs):
    df = learn.regularizers(**kwargs)
    return df[df.kind==kind]

def value(learn, kind, **kwargs):
    r = rows(learn, kind, **kwargs)
    assert len(r)==1, r
    return r.iloc[0]

# ---- effective decay ----

torch_opt = lambda f,**kw: partial(OptimWrapper, opt=partial(f, **kw))
opts = {'SGD': (partial(SGD, mom=0.), 'decoupled'), 'SGD mom': (partial(SGD, mom=.9), 'decoupled'), 'SGD L2': (partial(SGD, decouple_wd=False), 'L2'),
        'SGD mom L2': (partial(SGD, mom=.9, decouple_wd=False), 'L2'), 'Adam': (Adam, 'decoupled'), 'RMSProp': (RMSProp, 'decoupled'), 'Lamb': (Lamb, 'decoupled'),
        'torch SGD': (torch_opt(torch.optim.SGD), 'L2'), 'torch SGD mom': (torch_opt(torch.optim.SGD, momentum=.9), 'L2'),
        'torch SGD nesterov': (torch_opt(torch.optim.SGD, momentum=.9, nesterov=True), 'L2'), 'torch SGD dampening': (torch_opt(torch.optim.SGD, momentum=.9, dampening=.5), 'L2'),
        'dampened L2': (partial(fo.Optimizer, cbs=[fo.l2_reg, partial(fo.average_grad, dampening=True), fo.momentum_step], mom=.9, wd=0.), 'L2'),
        'torch AdamW': (torch_opt(torch.optim.AdamW), 'decoupled'), 'torch NAdam': (torch_opt(torch.optim.NAdam, decoupled_weight_decay=True), 'decoupled')}

@pytest.mark.parametrize('name', opts)
def test_effective_decay_is_the_measured_shrinkage(name):
    f,kind = opts[name]
    lr,wd,n = .05,2e-4,600
    p = nn.Parameter(torch.ones(1, dtype=torch.float64))
    opt = f([p], lr=lr)
    opt.set_hypers(wd=wd)
    assert decay_kind(opt) == kind
    ws = ref.shrink(lambda _: opt, p, n)
    measured = 1-(ws[-1]/ws[n//2-1])**(2/n)
    assert measured == pytest.approx(group_decay_rate(opt, lr, opt.hypers[0]), rel=1.5e-3 if kind=='L2' else 1e-9) # L2: to first order in lr*wd/(1-mom)**2

@pytest.mark.parametrize('f', [partial(Adam, decouple_wd=False), partial(RMSProp, decouple_wd=False), torch_opt(torch.optim.Adam), torch_opt(torch.optim.RMSprop), torch_opt(torch.optim.Adagrad)])
def test_l2_in_adaptive_optimizers_has_no_fixed_share(f):
    shares = []
    for w0 in (1.,100.):
        p = nn.Parameter(torch.full((1,), w0, dtype=torch.float64))
        opt = f([p], lr=.01); opt.set_hypers(wd=.02)
        ws = ref.shrink(lambda _: opt, p, 20)
        shares.append(1-ws[-1]/ws[0])
        assert decay_kind(opt)=='scaled L2' and math.isnan(group_decay_rate(opt, .01, opt.hypers[0]))
    assert shares[0] > 10*shares[1] # the step has the size of the LR, not of the weight

@pytest.mark.parametrize('decouple', [True, False])
def test_decay_over_a_cycle_is_the_measured_shrinkage(decouple):
    "A whole fit in which only decay moves the weight"
    model = nn.Linear(4, 1)
    dls = fit_dls(torch.zeros(408, 4), torch.zeros(408, 1))
    learn = Learner(dls, model, loss_func=lambda p,y: (p*0).mean(), opt_func=partial(SGD, mom=.9, decouple_wd=decouple), wd_bn_bias=True)
    was,wd = model.weight.detach().clone(),.005
    left = _left(learn.opt_func(learn.splitter(model), lr=.1), wd, *_run_rates(learn, .1, 4))
    learn.fit_superconv(4, .1, wd=wd)
    ratio = (model.weight/was).mean().item()
    assert ratio == pytest.approx(left, rel=1e-4)
    if not decouple:
        lr,mom = one_cycle(200, .1).values(),momentum_cycle(200, learn.moms).values()
        assert ratio == pytest.approx(ref.heavy_ball(lr, wd, mom), rel=1e-4)

@pytest.mark.parametrize('wd', [5., 30.])
def test_a_large_decay_is_not_an_exponential(wd):
    "What is left of a weight when lr*wd is near 1, or above it"
    learn = ridge()
    left = _left(learn.opt_func(learn.splitter(learn.model), lr=.1), wd, *_run_rates(learn, .05, 3))
    model = learn.model[1]
    was = model.weight.detach().clone()
    learn.loss_func = lambda p,y: (p*0).mean()
    learn.fit_superconv(3, .05, wd=wd)
    assert (model.weight/was).mean().item() == pytest.approx(left, rel=1e-4)

def test_dampening_is_in_the_effective_lr():
    sgd = make_learner(opt_func=torch_opt(torch.optim.SGD, momentum=.9, dampening=.9, weight_decay=1e-3), lr=.1)
    assert value(sgd, 'lr').effective == pytest.approx(.1) and value(sgd, 'wd').effective == pytest.approx(1e-4)
    assert value(sgd, 'noise_scale').effective == pytest.approx(value(sgd, 'noise_scale').value)

# ---- audit ----

class DropPath(nn.Module):
    "As in timm"
    def __init__(self, drop_prob=0.): super().__init__(); self.drop_prob = drop_prob
    def forward(self, x): return x

class Vision(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem,self.sd,self.path = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout2d(.1)),StochasticDepth(.3, 'row'),DropPath(.4)
        self.att,self.ln,self.alpha,self.head = nn.MultiheadAttention(4, 1, dropout=.15),nn.LayerNorm(4),nn.AlphaDropout(.05),nn.Linear(4, 10)
    def forward(self, x): return F.dropout(self.head(self.alpha(self.path(self.sd(self.stem(x))).mean((2,3)))), .2, self.training)

def vision(**kwargs):
    ds = list(zip(torch.rand(40, 1, 8, 8), torch.arange(40)%10))
    dls = DataLoaders(DataLoader(ds, bs=8, after_batch=[Flip(p=.25), Brightness(p=.6)]), DataLoader(ds, bs=8), device='cpu')
    return Learner(dls, Vision(), loss_func=LabelSmoothingCrossEntropyFlat(eps=.15), opt_func=partial(SGD, mom=.9), **kwargs)

def test_audit_of_timm_models():
    "timm's own dropouts and stochastic depth, and a probability that a network keeps as a number"
    timm = pytest.importorskip('timm')
    def audit(name, **kwargs):
        learn = vision()
        learn.model = timm.create_model(name, num_classes=10, **kwargs)
        return learn,rows(learn, 'dropout').set_index('where').value
    learn,vit = audit('vit_tiny_patch16_224', img_size=32, depth=3, drop_rate=.1, attn_drop_rate=.15, drop_path_rate=.2)
    assert vit['head_drop.p (Dropout)']==.1 and vit['blocks.2.attn.attn_drop.p (Dropout)']==.15
    assert [vit[f'blocks.{i}.drop_path1.drop_prob (DropPath)'] for i in (1,2)]==pytest.approx([.1,.2])
    with learn.reduced_regularization(dropout=0.): assert not rows(learn, 'dropout').value.any()
    assert rows(learn, 'dropout').value.tolist()==vit.tolist()
    _,res = audit('resnet10t', drop_rate=.3, drop_path_rate=.1)
    assert res['drop_rate (ResNet)']==.3 and res['layer4.0.drop_path.drop_prob (DropPath)']==pytest.approx(.1)

def test_audit_of_a_vision_learner():
    learn = vision(cbs=[MixUp(.3), GradientClip(2.), EarlyStoppingCallback(patience=4), GradientAccumulation(20)], wd=.01)
    drops = rows(learn, 'dropout')
    assert dict(zip(drops['where'], drops.value)) == pytest.approx({'stem.2.p (Dropout2d)':.1, 'sd.p (StochasticDepth)':.3, 'path.drop_prob (DropPath)':.4,
        'att.dropout (MultiheadAttention)':.15, 'alpha.p (AlphaDropout)':.05, 'Vision calls dropout':math.nan}, nan_ok=True)
    assert 'not visible' in drops[drops.value.isna()].advice.item()
    assert value(learn, 'label_smoothing').value == .15
    assert value(learn, 'mixup').value == pytest.approx(.3)
    assert value(learn, 'grad_clip').value == 2 and value(learn, 'early_stopping').value == 4
    assert tuple(value(learn, 'batch_size')[['value','effective']]) == (8, 24) # 20 items fill up to three batches
    aug = rows(learn, 'augmentation')
    assert dict(zip(aug['where'], aug.value)) == {'batch_tfms: Flip flip_mat':.25, 'batch_tfms: Brightness BrightnessLogit':.6}
    norm = rows(learn, 'norm')
    assert dict(zip(norm['where'], norm.value)) == {'BatchNorm2d, momentum 0.1':1, 'LayerNorm':1}
    wd = value(learn, 'wd')
    assert (wd.value, wd.effective) == (.01, pytest.approx(.001*.01)) and 'spared' in wd['where']
    scale = value(learn, 'noise_scale')
    assert (scale.value, scale.effective) == (pytest.approx(.001*40/24), pytest.approx(.001*40/24/.1))
    lr = value(learn, 'lr')
    assert (lr.value, lr.effective) == (.001, pytest.approx(.01))

def test_audit_at_the_peak_of_the_cycle():
    learn = vision(wd=.01)
    assert value(learn, 'lr', lr_max=3.).effective == pytest.approx(3/(1-.85))
    assert value(learn, 'wd', lr_max=3.).effective == pytest.approx(.03)
    assert value(learn, 'noise_scale', lr_max=3.).effective == pytest.approx(3*40/8/(1-.85))

def test_audit_of_awd_lstm_and_tabular():
    x,y = torch.randint(0, 10, (24, 5)),torch.rand(24, 1)
    text = Learner(fit_dls(x, y), AWD_LSTM(10, 4, 4, 2, hidden_p=.1, input_p=.2, embed_p=.3, weight_p=.4), loss_func=noop)
    drops = rows(text, 'dropout').dropna(subset='value')
    assert dict(zip(drops['where'], drops.value)) == {'encoder_dp.embed_p (EmbeddingDropout)':.3, 'rnns.0.weight_p (WeightDropout)':.4, 'rnns.1.weight_p (WeightDropout)':.4,
        'input_dp.p (RNNDropout)':.2, 'hidden_dps.0.p (RNNDropout)':.1, 'hidden_dps.1.p (RNNDropout)':.1}
    tab = Learner(fit_dls(x, y), TabularModel([(10,3)], 2, 1, [8], ps=.25, embed_p=.05), loss_func=noop)
    drops = rows(tab, 'dropout')
    assert sorted(drops.value) == [.05, .25]
    assert value(tab, 'wd').value == .01 and rows(tab, 'norm').value.sum() == 2

def test_audit_of_torch_optimizers():
    sgd = make_learner(opt_func=torch_opt(torch.optim.SGD, momentum=.9, weight_decay=1e-4), lr=.1)
    assert (value(sgd, 'wd').effective, value(sgd, 'wd').value) == (pytest.approx(.1*1e-4/.1), 1e-4)
    assert 'norm and bias included' in value(sgd, 'wd')['where'] # wd_bn_bias=False does not reach a torch optimizer
    adam = make_learner(opt_func=torch_opt(torch.optim.AdamW, weight_decay=.05), lr=.01)
    assert value(adam, 'wd').effective == pytest.approx(.01*.05)
    none = make_learner(opt_func=torch_opt(torch.optim.Rprop))
    assert value(none, 'wd').value == 0 and 'none' in value(none, 'wd')['where']

def test_audit_of_groups_frozen_and_datasets():
    learn = make_learner(splitter=groups, wd=.1)
    learn.freeze()
    frozen = value(learn, 'frozen')
    n = sum(p.numel() for p in learn.model.body[0].parameters())
    assert frozen.value == n and frozen['where'] == 'group 0' and frozen.effective == pytest.approx(n/sum(p.numel() for p in learn.model.parameters()))
    learn.unfreeze(); learn.fit(1); learn.freeze()
    before = learn.model.body[0].weight.detach().clone()
    assert 'still decayed' in value(learn, 'frozen').advice
    learn.fit(1, lr=.1)
    assert not torch.equal(before, learn.model.body[0].weight) # and so it is
    class Own(torch.utils.data.Dataset):
        def __len__(self): return 8
        def __getitem__(self, i): return torch.zeros(4),torch.zeros(1)
    learn.dls = DataLoaders(DataLoader(Own(), bs=4), DataLoader(Own(), bs=4))
    assert 'not visible' in value(learn, 'augmentation').advice

def test_audit_of_aug_transforms_and_torchvision():
    learn = vision()
    learn.dls.train.after_batch = Pipeline(aug_transforms(flip_vert=True, p_affine=.5, p_lighting=.7))
    found = dict(zip(*rows(learn, 'augmentation')[['where','value']].values.T))
    assert found['batch_tfms: Brightness BrightnessLogit'] == .7 and len(found) >= 4
    from torchvision import transforms as T
    class Images(torch.utils.data.Dataset):
        transform = T.Compose([T.RandomHorizontalFlip(.3), T.ToTensor(), T.RandomErasing(.2)])
        def __len__(self): return 8
        def __getitem__(self, i): return torch.zeros(1, 8, 8),torch.tensor(0)
    learn.dls = DataLoaders(DataLoader(Images(), bs=4), DataLoader(Images(), bs=4))
    found = dict(zip(*rows(learn, 'augmentation')[['where','value']].values.T))
    assert found['dataset.transform: RandomHorizontalFlip'] == .3 and found['dataset.transform: RandomErasing'] == .2 and len(found) == 3

def test_a_module_called_dropout_is_not_a_function():
    class Named(nn.Module):
        def __init__(self): super().__init__(); self.dropout,self.lin = nn.Dropout(.3),nn.Linear(4, 1)
        def forward(self, x): return self.lin(self.dropout(x))
    class Method(nn.Linear):
        def forward(self, x): return self.head(super().forward(x))
        def head(self, x): return F.feature_alpha_dropout(x, .1)
    learn = make_learner()
    learn.model = nn.Sequential(Named(), Method(1, 1))
    assert list(rows(learn, 'dropout')['where']) == ['0.dropout.p (Dropout)', 'Method calls feature_alpha_dropout']

def test_audit_of_a_stream():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self): yield torch.zeros(4),torch.zeros(1)
    learn = make_learner()
    learn.dls = DataLoaders(DataLoader(Stream(), bs=4), DataLoader(Stream(), bs=4))
    assert value(learn, 'batch_size').value == 4 and math.isnan(value(learn, 'noise_scale').value)

def helper(x, p, training): return F.dropout(x, p, training)

def test_calls_that_drop_are_found_wherever_they_are():
    class Net(nn.Module):
        def __init__(self): super().__init__(); self.lin = nn.Linear(4, 1)
        def forward(self, x): return self.lin(F.dropout(x, .3, self.training))
    class Heir(Net): pass
    class Plain(Net):
        def forward(self, x): return self.lin(x)
    class Deeper(Plain):
        def forward(self, x): return super().forward(x)
    class Helped(Net):
        def forward(self, x): return self.lin(helper(x, .3, self.training))
    def near(x): return F.dropout(x, .3)
    class Near(Net):
        def forward(self, x): return self.lin(near(x))
    class Nested(Net):
        def forward(self, x): return (lambda o: self.lin(nn.functional.dropout(o, .3)))(x)
    class Attention(Net):
        def forward(self, x): return F.scaled_dot_product_attention(x, x, x, dropout_p=.3)
    class Silent(Net):
        def forward(self, x): return F.scaled_dot_product_attention(x, x, x)
    learn = make_learner()
    def found(cls): learn.model = cls(); return list(rows(learn, 'dropout')['where'])
    for cls in (Net, Heir, Helped, Near, Nested): assert found(cls) == [f'{cls.__name__} calls dropout']
    assert found(Plain) == found(Deeper) == found(Silent) == [] and found(Attention) == ['Attention calls scaled_dot_product_attention']

def test_probabilities_that_modules_keep_as_numbers():
    from torchvision.models.swin_transformer import ShiftedWindowAttention
    from torchvision.models.densenet import _DenseLayer
    class Own(nn.Module):
        def __init__(self, p): super().__init__(); self.dropout,self.width,self.lin = p,.5,nn.Linear(4, 1)
        def forward(self, x): return self.lin(F.dropout(x, self.dropout, self.training)*self.width)
    class PatchDropout(nn.Module):
        "As in timm"
        def __init__(self): super().__init__(); self.prob,self.num_prefix_tokens = .25,1
        def forward(self, x): return x
    learn = make_learner()
    learn.model = nn.Sequential(ShiftedWindowAttention(8, [2,2], [0,0], 2, attention_dropout=.3, dropout=.2), _DenseLayer(4, 4, 2, .1), Own(.4), PatchDropout())
    df = rows(learn, 'dropout')
    assert dict(zip(df['where'], df.value)) == pytest.approx({'0.attention_dropout (ShiftedWindowAttention)':.3, '0.dropout (ShiftedWindowAttention)':.2,
        '1.drop_rate (_DenseLayer)':.1, '2.dropout (Own)':.4, '3.prob (PatchDropout)':.25})
    learn.model[1].drop_rate = 0.
    assert '_DenseLayer' not in ' '.join(rows(learn, 'dropout')['where']) # it drops nothing
    with learn.reduced_regularization(dropout=.5): assert ps(learn.model) == pytest.approx([.15, .1, 0, .2, .125])
    x = torch.ones(1000, 4)
    learn.model[2].lin = nn.Identity()
    with learn.reduced_regularization(dropout=2.): assert (learn.model[2](x)==0).float().mean().item() == pytest.approx(.8, abs=.05) # it takes effect

def test_containers_of_transforms_and_wrapped_datasets():
    from torchvision import transforms as T
    from torch.utils.data import ConcatDataset, Subset, random_split
    class Images(torch.utils.data.Dataset):
        transform = T.Compose([T.RandomApply([T.Grayscale(), T.RandomHorizontalFlip(.2)], p=.3), T.RandomChoice([T.Grayscale(), T.CenterCrop(3)]), T.ToTensor()])
        def __len__(self): return 8
        def __getitem__(self, i): return torch.zeros(4),torch.zeros(1)
    learn = make_learner()
    for ds in (Images(), Subset(Images(), range(8)), random_split(Images(), [6,2])[0], ConcatDataset([Images(), Images()]), Subset(ConcatDataset([Images()]), range(4))):
        learn.dls = DataLoaders(DataLoader(ds, bs=4), DataLoader(ds, bs=4))
        df = rows(learn, 'augmentation')
        found = dict(zip(df['where'], df.value))
        assert found['dataset.transform: RandomApply(Grayscale, RandomHorizontalFlip)'] == .3 and found['dataset.transform: RandomHorizontalFlip'] == .2
        assert math.isnan(found['dataset.transform: RandomChoice(Grayscale, CenterCrop)']) and math.isnan(found['inside Images']) and len(found) == 4
    learn.dls = DataLoaders(*[torch.utils.data.DataLoader(list(zip(torch.zeros(8, 4), torch.zeros(8, 1))), 4, collate_fn=f) for f in (helper, None)])
    assert list(rows(learn, 'augmentation')['where']) == ['inside collate_fn helper']

def test_audit_of_callbacks_in_the_loss():
    class Penalty(Callback):
        def after_loss(self): self.learn.loss_grad += 1
    class Watch(Callback):
        def after_batch(self): pass
    learn = make_learner(cbs=[RNNRegularizer(alpha=2., beta=1.), Penalty(), Watch()])
    assert list(rows(learn, 'activation').value) == [2, 1]
    assert value(learn, 'callback')['where'] == 'Penalty: after_loss' and 'not visible' in value(learn, 'callback').advice

@pytest.mark.parametrize('loss', [nn.PoissonNLLLoss(), nn.GaussianNLLLoss(), nn.TripletMarginLoss(), nn.CrossEntropyLoss()])
def test_a_small_number_in_a_loss_is_no_smoothing(loss):
    learn = make_learner(); learn.loss_func = loss
    assert not len(rows(learn, 'label_smoothing'))

@pytest.mark.parametrize('loss,want', [(nn.CrossEntropyLoss(label_smoothing=.2), .2), (CrossEntropyLossFlat(label_smoothing=.1), .1), (FocalLossFlat(gamma=1.5), 1.5), (partial(F.cross_entropy, label_smoothing=.3), .3)])
def test_audit_of_losses(loss, want):
    learn = make_learner(); learn.loss_func = loss
    assert value(learn, 'label_smoothing').value == want

def test_audit_changes_nothing():
    learn = make_learner()
    before,rng = dict(vars(learn)),torch.get_rng_state()
    learn.regularizers(); learn.regularizers(lr_max=3.)
    assert learn.opt is None and vars(learn) == before and torch.equal(rng, torch.get_rng_state())
    learn.fit(1)
    state = deepcopy(learn.opt.state_dict())
    keys = set(learn.opt.state)
    learn.regularizers(lr_max=1.)
    assert set(learn.opt.state) == keys and state['hypers'] == learn.opt.state_dict()['hypers']
    with pytest.raises(ValueError, match='lr_max'): learn.regularizers(lr_max=-1)

def test_audit_is_readable():
    df = vision(wd=.01).regularizers(lr_max=3.)
    assert list(df.columns) == ['kind','where','value','effective','advice','source']
    text,html = repr(df),df._repr_html_()
    assert max(map(len, text.splitlines())) <= 140 and '...' not in text and 'nan' not in html.lower()
    assert 'mean' in repr(df.describe()) and 'lr' in repr(df.set_index('kind')[['value']]) and 'lr' in df.set_index('kind')._repr_html_() # their index is theirs
    assert isinstance(df[df.kind=='wd'], pd.DataFrame) and df[df.kind=='wd'].advice.item() in html

# ---- advice ----

def test_advice_converts_the_papers_decays():
    decoupled,l2 = (value(make_learner(opt_func=partial(SGD, mom=.95, decouple_wd=d)), 'wd', lr_max=3.) for d in (True, False))
    def numbers(advice): return [float(v) for v in re.match(r'try (\S+) to (\S+), and 0', advice).groups()]
    (high,low),(high_d,low_d) = numbers(l2.advice),numbers(decoupled.advice)
    assert (low, high) == (1e-6, 1e-4) and 'times' not in l2.advice
    lr,m = one_cycle(1000, 1.).values(),momentum_cycle(1000).values()
    factor = (lr/(1-m)).sum()/lr.sum()
    assert low_d/low == pytest.approx(factor, rel=.02) and high_d/high == pytest.approx(factor, rel=.02) and 9 < factor < 10
    assert '1708.07120' in decoupled.source and '1803.09820' in decoupled.source

def test_advice_is_for_what_the_lr_comes_to_with_momentum():
    "Without momentum LR 30 does what the papers' LR 3 does"
    def advice(lr_max, mom, **kwargs): return value(make_learner(opt_func=partial(SGD, mom=mom, **kwargs), moms=(mom,)*3), 'wd', lr_max=lr_max).advice
    same = advice(3., .9, decouple_wd=False)
    assert same.startswith('try 0.0001 to 1e-06, and 0') and advice(30., 0.).startswith('try 0.0001 to 1e-06, and 0') and 'times' not in advice(30., 0.)
    assert '1e-05 as L2, times 10' in advice(1., .9) or 'times 10' in advice(3., .9)
    assert 'Rule of thumb' in advice(300., 0.) and 'Rule of thumb' in advice(30., .9)
    assert advice(3., 0.) != same # not what was found at ten times the effective LR

def test_every_kind_has_advice_and_numbers_have_sources():
    learn = vision(cbs=[MixUp(.3), CutMix(), GradientClip(2.), EarlyStoppingCallback(), RNNRegularizer(1.)])
    df = learn.regularizers(lr_max=1.)
    assert {'lr','wd','batch_size','noise_scale','dropout','augmentation','norm','label_smoothing','mixup','cutmix','grad_clip','early_stopping','activation'} == set(df.kind)
    assert (df.advice != '').all()
    for r in df.itertuples():
        if r.source == '': assert 'Rule of thumb' in r.advice or 'not visible' in r.advice
    assert 'Rule of thumb' in value(learn, 'wd', lr_max=100.).advice
    assert 'no numbers' in value(make_learner(opt_func=Adam), 'wd', lr_max=.01).advice

# ---- reduced_regularization ----

def ps(model): return [getattr(m, a) for _,m,a in find_dropouts(model)]

def test_reduced_regularization_and_back():
    learn = vision(wd=.1)
    was = ps(learn.model)
    with learn.reduced_regularization(wd=.01, dropout=.5) as same:
        assert same is learn and learn.wd == .01 and ps(learn.model) == pytest.approx([p/2 for p in was])
        assert value(learn, 'wd').value == .01
    assert learn.wd == .1 and ps(learn.model) == was and learn.opt is None

@pytest.mark.parametrize('opt_func', [partial(SGD, mom=.9, wd=.3), torch_opt(torch.optim.SGD, momentum=.9, weight_decay=.3)])
@pytest.mark.parametrize('made', [True, False])
def test_reduced_regularization_whatever_happens(opt_func, made):
    learn = make_learner(opt_func=opt_func, splitter=groups)
    if made: learn.create_opt()
    with pytest.raises(KeyboardInterrupt):
        with learn.reduced_regularization(wd=[.02,.01]):
            learn.fit(1)
            assert [h['wd'] for h in learn.opt.hypers] == [.02,.01]
            raise KeyboardInterrupt()
    assert learn.wd is None and [h['wd'] for h in learn.opt.hypers] == [.3,.3]

def test_reduced_decay_is_what_trains():
    "Inside, a fit does what a fit with that `wd` does"
    a,b = make_learner(wd=.3),make_learner(wd=.3)
    with a.reduced_regularization(wd=.01): a.fit(1, lr=.1)
    b.fit(1, lr=.1, wd=.01)
    assert all(torch.equal(p, q) for p,q in zip(a.model.parameters(), b.model.parameters()))

@pytest.mark.parametrize('wd', [np.float32(.5), torch.tensor(.5), np.array([.5,.25]), (.5,.25), L(.5,.25), slice(.25,.5)])
@pytest.mark.parametrize('made', [True, False])
def test_reduced_decay_takes_any_number(wd, made):
    learn = make_learner(wd=.3, splitter=groups)
    if made: learn.create_opt()
    with learn.reduced_regularization(wd=wd):
        learn.fit(1)
        got = [h['wd'] for h in learn.opt.hypers]
        assert got == [float(v) for v in wd] if isinstance(wd, (np.ndarray,tuple,L)) else got == [.25,.5] if isinstance(wd, slice) else got == [.5,.5]
        assert all(isinstance(v, float) for v in got)
    assert learn.wd == .3

def spared(params, lr=.001, **kwargs):
    "torch's AdamW with its own groups: biases are not decayed"
    ps = [p for g in params for p in (g if isinstance(g, (list,L)) else [g])]
    return OptimWrapper(opt=torch.optim.AdamW([dict(params=[p for p in ps if p.ndim>1], weight_decay=.05), dict(params=[p for p in ps if p.ndim<=1], weight_decay=0.)], lr=lr))

def test_groups_keep_the_ratio_of_their_decays():
    learn = make_learner(opt_func=spared)
    with learn.reduced_regularization(wd=.01):
        learn.create_opt(); learn.opt.set_hypers(wd=learn.wd)
        assert [h['wd'] for h in learn.opt.hypers] == [.01, 0]
    learn = ridge(wd=[.1,.4], splitter=lambda m: [params(m[1])[:1], params(m[1])[1:]], bias=True)
    seen = []
    class See(Callback):
        def before_step(self): seen.append(tuple(h['wd'] for h in self.opt.hypers))
    learn.add_cb(See())
    b = learn.balance_regularization(.05, 2, [1.,2.], seeds=2)
    assert set(seen) == {(.25,1.), (.5,2.)} and learn.wd == [.1,.4]
    b.choice.best = {'wd':8.}
    b.apply()
    assert learn.wd == [2.,8.]
    with learn.reduced_regularization(wd=[3.,3.]): assert learn.wd == 3. # as it is told
    equal = ridge(wd=.3, splitter=lambda m: [params(m[1])[:1], params(m[1])[1:]], bias=True)
    with equal.reduced_regularization(wd=.1): assert equal.wd == .1

@pytest.mark.parametrize('module', [nn.Dropout(.4), nn.MultiheadAttention(4, 1, dropout=.4), nn.LSTM(4, 4, 2, dropout=.4)])
def test_reductions_nest(module):
    learn = make_learner()
    learn.model = nn.Sequential(module, nn.Linear(4, 1))
    with learn.reduced_regularization(dropout=0.):
        with learn.reduced_regularization(dropout=.5): assert ps(learn.model) == [0]
    with learn.reduced_regularization(dropout=.5):
        with learn.reduced_regularization(dropout=.5): assert ps(learn.model) == pytest.approx([.1])
        assert ps(learn.model) == pytest.approx([.2])
    assert ps(learn.model) == [.4]

@pytest.mark.parametrize('kwargs', [dict(wd=-1), dict(wd='x'), dict(wd=[.1,.1]), dict(wd=math.nan), dict(dropout=3.), dict(dropout=-1), dict(dropout=True)])
def test_reduced_regularization_refuses(kwargs):
    learn = vision(wd=.1)
    was = ps(learn.model)
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        with learn.reduced_regularization(**kwargs): pass
    assert learn.wd == .1 and ps(learn.model) == was

def test_refuses_what_the_learner_does_not_have():
    with pytest.raises(ValueError, match='no dropout'):
        with make_learner().reduced_regularization(dropout=.5): pass
    with pytest.raises(ValueError, match='no weight decay'):
        with make_learner(opt_func=torch_opt(torch.optim.Rprop)).reduced_regularization(wd=.5): pass

# ---- the choice ----

@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=2, max_size=7), st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_margin_is_tukeys_and_seeds_cancel(rows, offsets):
    x = np.array(rows)
    assert _margin(x) == pytest.approx(ref.tukey(rows, _critical), abs=1e-9)
    assert _margin(x + offsets) == pytest.approx(_margin(x), abs=1e-9)

def choice(x, wds=None, start=None, bad=()):
    wds = wds or [0., *10.**np.arange(-4, len(x)-5)]
    runs = {(w,1.,s): dict(loss=None if (w,s) in bad else x[i][s], train_loss=x[i][s], start=start) for i,w in enumerate(wds) for s in range(len(x[0])) if not np.isnan(x[i][s])}
    return Choice(runs, [(w,1.) for w in wds], list(range(len(x[0]))))

@pytest.mark.parametrize('seeds', [3,5])
def test_a_race_among_equals(seeds):
    "Five equal candidates in the race of a search: some are held to be worse in at most about one of twenty"
    n,looks = 400,seeds-1
    rng,cands,wrong,more = np.random.default_rng(0),[(float(i),1.) for i in range(5)],0,0
    for _ in range(n):
        x,runs = rng.normal(size=(5,seeds)),{}
        for jobs in _race(runs, cands, list(range(seeds)), looks): runs.update({(w,d,s): dict(loss=x[int(w),s], train_loss=None, start=None) for w,d,s in jobs})
        c = Choice(runs, cands, list(range(seeds)), looks)
        wrong += len(c.contenders) < 5
        more += len(runs) < 5*seeds
        if _ < 20: assert set(c.contenders) == {cands[i] for i in ref.race(x, lambda c,df: _critical(c, df, looks))}
    assert wrong/n < .08 and more <= wrong # those that are out get no more seeds

def test_no_choice_among_equals():
    "All runs, one look"
    rng = np.random.default_rng(0)
    n = 400
    chosen = sum(choice(rng.normal(size=(5,3))).best is not None for _ in range(n))
    assert chosen/n < .05 + 3*math.sqrt(.05*.95/n)

def test_a_clear_best_is_found_beside_a_wild_one():
    rng = np.random.default_rng(0)
    x = np.array([1.,.8,.5,.9,3.])[:,None] + rng.normal(size=(5,3))*np.array([.02,.02,.02,.02,.5])[:,None] + rng.normal(size=3)
    c = choice(x)
    assert c.best == {'wd':1e-3} and c.interval == {'wd':(1e-3,1e-3)} and 'significantly' in c.reason
    wds = [0.,1e-4,1e-3,1e-2,.1]
    assert choice(x[::-1], wds).best == {'wd':1e-3}

def test_the_reasons():
    rng = np.random.default_rng(1)
    noise = .01*rng.normal(size=(5,3))
    c = choice(np.array([.5,.5,.5,.9,1.])[:,None]+noise)
    assert c.best is None and c.interval == {'wd':(0,1e-3)} and 'up to 0.001' in c.reason
    c = choice(np.array([1.,.9,.5,.5,.5])[:,None]+noise)
    assert set(c.best) == {'wd'} and c.interval == {'wd':(1e-3,.1)}
    c = choice(np.array([1.,.9,.8,.7,.5])[:,None]+noise)
    assert c.best == {'wd':.1} and 'largest that was tried' in c.reason
    c = choice(np.array([.5,.6,.7,.8,.9])[:,None]+noise)
    assert c.best == {'wd':0}
    c = choice(np.array([2.,2.1,2.2,.5,.6])[:,None]+noise, start=1.5)
    assert c.best is None and 'unstable' in c.reason and 'lower lr_max' in c.reason.lower()
    c = choice(np.array([.7,.5,.9,1.,1.1])[:,None]+noise, bad=[(.1,0),(1e-2,2)])
    assert c.best == {'wd':1e-4} # diverged candidates are out, and are not a reason to give up while they are few
    c = choice(np.repeat([[.5],[.4],[.6]], 3, 1))
    assert c.best is None and 'seeds change nothing' in c.reason

def test_the_reasons_say_no_more_than_is_known():
    rng = np.random.default_rng(1)
    noise = .002*rng.normal(size=(5,3))
    c = choice(np.array([.5,.6,.5,.9,1.])[:,None]+noise) # 1e-4 is worse
    assert c.best is None and 'up to' not in c.reason and '0 and 0.001 cannot be told apart' in c.reason
    c = choice(np.array([.5,.5,.9])[:,None]+noise[:3], wds=[1e-3,1e-2,.1]) # 0 was not tried
    assert c.best is None and 'up to' not in c.reason and '0.001 and 0.01 cannot be told apart' in c.reason and 'nothing smaller was tried' in c.reason
    c = choice(np.array([.9,.5,.6,.5,1.])[:,None]+noise)
    assert c.best and 'significantly' not in c.reason and 'may be as good' in c.reason
    x = np.array([.5,.6,.7,.8,.9])[:,None]+noise
    runs = {(w,1.,s): dict(loss=x[i,s], train_loss=x[i,s], start=.4 if i<2 else 2.) for i,w in enumerate([0.,1e-3,1e-2,.1,1.]) for s in range(3)}
    c = Choice(runs, [(w,1.) for w in (0.,1e-3,1e-2,.1,1.)], [0,1,2]) # the two lowest learned nothing
    assert c.best == {'wd':1e-2} and (0.,1.) not in c.contenders
    c = choice(np.array([.5,.50001,.50002])[:,None] + 1e-7*rng.normal(size=(3,3)))
    assert c.best is None and 'seeds change nothing' in c.reason # but rounding

def two_axes(means, wds, drops, seeds=3):
    rng = np.random.default_rng(0)
    runs = {(w,d,s): dict(loss=5+means(w, d)+.01*rng.normal(), train_loss=None, start=None) for w in wds for d in drops for s in range(seeds)}
    return Choice(runs, [(w,d) for w in wds for d in drops], list(range(seeds)))

def test_combinations_that_tie():
    c = two_axes(lambda w,d: (w,d) not in ((.01,0.),(.1,1.)), [0.,.01,.1], [0.,1.])
    assert set(c.contenders) == {(.01,0.),(.1,1.)} and 'significantly' not in c.reason and '2 combinations tie' in c.reason
    assert c.interval == {'wd':(.01,.1), 'dropout':(0.,1.)} and c.best == {'wd':c.top[0], 'dropout':c.top[1]} # never a wd of one with a dropout of the other
    c = two_axes(lambda w,d: w!=.01, [0.,.01,.1], [0.,1.]) # dropout does not matter
    assert c.best == {'wd':.01} and 'significantly' not in c.reason and 'tie' not in c.reason
    c = two_axes(lambda w,d: (w,d)!=(.01,0.), [0.,.01,.1], [0.,1.])
    assert c.best == {'wd':.01, 'dropout':0.} and c.reason.count('significantly') == 2
    c = two_axes(lambda w,d: (w,d) not in ((0.,0.),(.1,1.)), [0.,.01,.1], [0.,1.]) # over the whole of both
    assert c.best is None and 'combinations tie' in c.reason

def test_each_axis_is_decided_for_itself():
    rng = np.random.default_rng(0)
    wds,drops = [0.,1e-3,1e-2],[0.,.5,1.]
    runs = {(w,d,s): dict(loss={0.:1,1e-3:.5,1e-2:.8}[w]+.001*rng.normal(), train_loss=None, start=None) for w in wds for d in drops for s in range(3)}
    c = Choice(runs, [(w,d) for w in wds for d in drops], [0,1,2])
    assert c.best == {'wd':1e-3} and c.interval['dropout'] == (0,1) and 'dropout' in c.reason

# ---- the search ----

wds = [0.,1.,10.,30.]

def snapshot(learn): return {**fingerprint(learn), 'dropout':ps(learn.model)}

@pytest.fixture(scope='module')
def serial():
    return ridge().balance_regularization(.05, 6, wds)

def test_search_finds_what_a_naive_search_finds(serial):
    def fit(learn, wd, seed):
        set_seed(seed)
        for dl in learn.dls.loaders: dl.rng.seed(seed)
        learn.validate()
        learn.fit_superconv(6, .05, wd=wd)
        return learn.validate()[0]
    naive = ref.search(ridge, fit, wds, 3)
    table = serial.table().set_index('wd')
    for wd,loss in naive.items():
        if table.seeds[wd] == 3: assert table.loss[wd] == pytest.approx(loss, rel=1e-5)
    assert serial.choice.top[0] == min(naive, key=naive.get) == 10.
    assert serial.best == {'wd':10.} and table.verdict[10.] == 'best' and table.left[1.] == pytest.approx(np.prod(1-one_cycle(12, .05).values()))

def test_results_are_objects(serial):
    assert serial.cost == 12*len(serial.runs) and str(serial.cost) in repr(serial) and 'wd=10' in repr(serial)
    assert list(serial.table().columns) == ['wd','dropout','left','loss','sd','mae','seeds','verdict'] and '<table' in serial._repr_html_()
    ax = serial.plot()
    dots = [l for l in ax.lines if l.get_marker()=='o']
    assert sum(np.isfinite(l.get_ydata()).sum() for l in dots) == len(serial.runs) and ax.get_xlabel() == 'weight decay'
    assert serial.plot(ax=ax) is ax

def test_clearly_worse_candidates_get_no_further_seeds():
    b = ridge().balance_regularization(.05, 6, [*wds, 3.], seeds=5)
    n = b.table().set_index('wd').seeds
    assert n[10.] == 5 and n[0.] < 5 and n.sum() < 25

@pytest.mark.parametrize('kind', [k for k in kinds if k!='trackers'])
@pytest.mark.parametrize('trained', [False, True])
def test_the_learner_is_left_to_the_bit(kind, trained):
    learn = busy_learner(kind)
    if trained: learn.fit(1)
    before = snapshot(learn)
    learn.balance_regularization(.01, 2, [0.,1.], dropouts=[0.,1.], seeds=2)
    same(before, snapshot(learn))

@pytest.mark.parametrize('fault', [KeyboardInterrupt('now'), ZeroDivisionError('now')])
def test_the_learner_is_left_to_the_bit_after_a_fault(fault):
    learn = busy_learner()
    learn.fit(1)
    learn.model.fail_at,learn.model.error = learn.model.calls+12,fault
    before = snapshot(learn)
    with pytest.raises(type(fault)): learn.balance_regularization(.01, 2, [0.,1.], dropouts=[.5,1.], seeds=2)
    same(before, snapshot(learn))

def test_apply(serial):
    learn = ridge(dropout=.2)
    runs = {(w,d,s): dict(loss=[1,.5,.9][i]+[.2,0.][j]+.01*((s+i+j)%2), train_loss=.1, start=9., metrics={}, steps=1) for i,w in enumerate([0.,.1,1.]) for j,d in enumerate([0.,.5]) for s in range(3)}
    b = Balance(learn, runs, [(w,d) for w in (0.,.1,1.) for d in (0.,.5)], [0,1,2], .1, 1)
    assert b.best == {'wd':.1, 'dropout':.5} and learn.wd is None
    b.apply(); b.apply()
    assert learn.wd == .1 and ps(learn.model) == [.1] # twice is once
    only = Balance(learn, {k:r for k,r in runs.items() if k[1]==.5}, [(w,.5) for w in (0.,.1,1.)], [0,1,2], .1, 1)
    learn.model[0].p = .77
    only.apply()
    assert only.best == {'wd':.1} and ps(learn.model) == [.77] # what it did not search it leaves alone
    none = Balance(learn, {k:{**r, 'loss':None} for k,r in runs.items()}, b.cands, b.seeds, .1, 1)
    with pytest.raises(ValueError, match='unstable'): none.apply()

def test_default_grid_is_scaled_to_the_run_and_refined(monkeypatch):
    "On a made-up loss that is lowest where the decays of a run add up to 2"
    total = one_cycle(48, .05).values().sum()
    def run(learn, lr_max, n_epoch, reinit, wd, dropout, seed):
        loss = 1+(math.log10(max(wd*total, 1e-3)/2))**2+.001*random.Random(f'{wd} {seed}').random()
        return dict(start=9., train_loss=loss, loss=loss, metrics={}, steps=1)
    monkeypatch.setattr(module, 'run_cycle', run)
    b = ridge(bs=4).balance_regularization(.05, 6)
    assert sorted(b.table().wd*total) == pytest.approx([0,.01,.1,1/math.sqrt(10),1,math.sqrt(10),10], rel=.06) # decades, then around 1
    assert b.best['wd']*total == pytest.approx(math.sqrt(10), rel=.06) and 'significantly' in b.reason
    lrs = one_cycle(48, .05).values()
    assert list(b.table().left) == pytest.approx([np.prod(1-w*lrs) for w in b.table().wd])

@pytest.mark.parametrize('opt_func,want', [(partial(SGD, mom=.9), 10.), (partial(SGD, mom=.9, decouple_wd=False), None), (torch_opt(torch.optim.Adam), .1), (ranger, .1)])
def test_default_grid_of_short_runs_and_other_optimizers(opt_func, want, monkeypatch):
    learn,tried = ridge(opt_func=opt_func),[]
    def run(learn, lr_max, n_epoch, reinit, wd, dropout, seed):
        tried.append(wd)
        return dict(start=2., train_loss=1., loss=1+random.Random(f'{wd} {seed}').random(), metrics={}, steps=1)
    monkeypatch.setattr(module, 'run_cycle', run)
    df = learn.balance_regularization(.05, 3).table()
    rates = _run_rates(learn, .05, 3)[2]
    assert max(tried) == pytest.approx(want or .5/rates.max(), rel=.05) and 0. in tried
    if want == .1: assert df.left.isna().all() and sorted(set(tried)) == [0,1e-5,1e-4,1e-3,1e-2,.1] # decay takes no fixed share
    else: assert max(tried)*rates.max() <= .51 and (df.left>=-.5).all()

def test_a_small_loss_at_the_start_is_no_divergence():
    "Held out it begins near 0, in training dropout keeps it far from there"
    learn = ridge(dropout=.5)
    for dl in learn.dls.loaders: dl.dataset = [(x, learn.model[1](x).detach()+1e-3) for x,_ in dl.dataset]
    run = run_cycle(learn, .01, 2, None, 0.)
    assert run['start'] < 1e-5 and run['train_loss'] > 1e-3 and run['steps'] == 4 and run['loss'] is not None

def test_says_that_the_initialization_was_one(serial):
    assert 'from others the answer may differ' in serial.reason
    def reinit(model): model[1].reset_parameters()
    assert 'from others' not in ridge().balance_regularization(.05, 1, [0.,1.], seeds=2, reinit=reinit).reason

def test_diverging_runs_stop_at_once():
    b = ridge().balance_regularization(1e4, 4, [0.,1e-6], seeds=2)
    assert b.best is None and 'unstable' in b.reason and b.cost < 4*8 and (b.table().verdict=='unstable').all() and np.isinf(b.table().loss).all()
    b.plot() # nothing to draw, no error

def test_runs_are_complete_cycles_without_trackers():
    learn = ridge(cbs=[EarlyStoppingCallback(patience=0, min_delta=9.), SaveModelCallback(), TerminateOnNaNCallback()])
    assert {r['steps'] for r in learn.balance_regularization(.05, 3, [0.,1.], seeds=2).runs.values()} == {6}

def test_cost_counts_optimizer_steps():
    learn = ridge(cbs=GradientAccumulation(32))
    assert learn.balance_regularization(.05, 4, [0.,1.], seeds=2).cost == 4*4

def test_reinit_starts_each_run_from_its_own_weights():
    starts = []
    def reinit(model):
        model[1].reset_parameters(); starts.append(model[1].weight.detach().clone())
    learn = ridge()
    was = learn.model[1].weight.detach().clone()
    b = learn.balance_regularization(.05, 2, [0.,1.], seeds=2, reinit=reinit)
    assert torch.equal(learn.model[1].weight, was)
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2]) # paired by seed
    assert len({r['start'] for r in b.runs.values()}) == 2

def test_torch_dataloaders_are_seeded():
    from torch.utils.data import DataLoader as Torch
    for gen in (None, torch.Generator()):
        learn = ridge()
        learn.dls = DataLoaders(Torch(learn.dls.train.dataset, 16, shuffle=True, generator=gen), Torch(learn.dls.valid.dataset, 16), device='cpu')
        a,b = (run_cycle(learn, .05, 2, None, 0., 1., s) for s in (0,0))
        assert a == b != run_cycle(learn, .05, 2, None, 0., 1., 1)

@pytest.mark.parametrize('kwargs,match', [(dict(seeds=1), 'no spread'), (dict(seeds=2.5), 'seeds'), (dict(wds=[]), 'wds'), (dict(wds=[.1]), 'at least two'), (dict(wds=[.1,-1]), 'wd'), (dict(wds=.1), 'wds'),
    (dict(wds=[.1,'a']), 'wd'), (dict(n_epoch=0), 'n_epoch'), (dict(n_jobs=0), 'n_jobs'), (dict(dropouts=[0.,1.]), 'no dropout'), (dict(reinit=True), 'reinit'), (dict(reinit='x'), 'reinit'), (dict(lr_max=0), 'lr_max'), (dict(lr_max='a'), 'lr_max')])
def test_refusals(kwargs, match):
    learn = ridge()
    before = snapshot(learn)
    with pytest.raises(ValueError, match=match): learn.balance_regularization(**{'lr_max':.05, **kwargs})
    same(before, snapshot(learn))

def test_refuses_without_validation_data():
    learn = ridge()
    learn.dls = DataLoaders(learn.dls.train)
    with pytest.raises(ValueError, match='validation'): learn.balance_regularization(.05)

# ---- the log ----

args = dict(lr_max=.05, n_epoch=2, wds=[0.,1.], seeds=3)

def test_an_interrupted_search_goes_on(tmp_path, monkeypatch):
    path = tmp_path/'search.jsonl'
    want = ridge().balance_regularization(**args, path=path)
    lines = path.read_text().splitlines(keepends=True)
    for cut in (len(''.join(lines[:3])), len(''.join(lines[:3]))+17, 5): # whole lines, half a line, half the first line
        path.write_text(''.join(lines)[:cut])
        n = []
        monkeypatch.setattr(module, 'run_cycle', lambda *a, **k: n.append(1) or run_cycle(*a, **k))
        got = ridge().balance_regularization(**args, path=path)
        assert got.runs == want.runs and len(n) == len(want.runs)-(0 if cut==5 else 2)
        assert sorted(path.read_text().splitlines()) == sorted(l.strip() for l in lines)
    n.clear()
    ridge().balance_regularization(**{**args, 'wds':[0.,1.,2.]}, path=path) # a larger grid
    assert len(n) == 2 or len(n) == 3

def test_a_killed_search_goes_on(tmp_path):
    path = tmp_path/'search.jsonl'
    p = multiprocessing.get_context('fork').Process(target=lambda: ridge().balance_regularization(.05, 2, [0.,.5,1.,2.], seeds=40, path=path))
    p.start()
    while not (path.exists() and path.read_text().count('\n') > 3) and p.is_alive(): time.sleep(.01)
    assert p.is_alive()
    p.kill(); p.join()
    done = path.read_text().count('\n')-1
    b = ridge().balance_regularization(.05, 2, [0.,.5,1.,2.], seeds=2, path=path)
    fresh = ridge().balance_regularization(.05, 2, [0.,.5,1.,2.], seeds=2)
    assert done >= 3 and b.runs == fresh.runs

@pytest.mark.parametrize('content', [b'\x80\x04\x95cos\nsystem\n', b'a poem\n', b'{}\n', b'[1]\n', b'{"superconv_fastai": "balance", "version": 99}\n', b'\n', b'{"a": 1'])
def test_hostile_logs_are_refused_and_kept(tmp_path, content):
    path = tmp_path/'log'
    path.write_bytes(content)
    with pytest.raises(ValueError, match='path'): ridge().balance_regularization(**args, path=path)
    assert path.read_bytes() == content

@pytest.mark.parametrize('run', ['"key": 1', '"key": [[1]]', '"loss": "x"', '"loss": NaN', '"steps": null', '"metrics": []', '"extra": 1'])
def test_damaged_runs_are_refused(tmp_path, run):
    path = tmp_path/'log'
    ridge().balance_regularization(**args, path=path)
    head,row,*_ = path.read_text().splitlines()
    bad = {**json.loads(row), **json.loads('{'+run+'}')}
    path.write_text(head+'\n'+json.dumps(bad)+'\n')
    with pytest.raises(ValueError, match='path'): ridge().balance_regularization(**args, path=path)

def test_the_log_of_another_search_is_refused(tmp_path):
    path = tmp_path/'log'
    ridge().balance_regularization(**args, path=path)
    for change,match in ((dict(lr_max=.1), 'lr_max'), (dict(n_epoch=3), 'n_epoch'), (dict(reinit=lambda m: None), 'reinit')):
        with pytest.raises(ValueError, match=match): ridge().balance_regularization(**{**args, **change}, path=path)
    with pytest.raises(ValueError, match='weights'): ridge(seed=1).balance_regularization(**args, path=path)

def other_data(part, change):
    def f(learn):
        dl = learn.dls[part]
        dl.dataset = change(dl.dataset)
    return f

class Settings(Callback):
    def __init__(self, strength): self.strength,self.calls = strength,0
    def before_batch(self): self.calls += 1

# what differs, and what of it the refusal names
others = {'dropout': (dict(dropout=.4), None, 'dropout'), 'its sort': ({}, lambda l: l.model.__setitem__(0, nn.AlphaDropout(.2)), 'model'),
          'loss': (dict(loss_func=MSELossFlat()), None, 'loss'), 'setting of the loss': (dict(loss_func=nn.HuberLoss(delta=2.)), None, 'loss'),
          'mixup': (dict(cbs=MixUp(.4)), None, 'callbacks'), 'clipping': (dict(cbs=GradientClip(1e-6)), None, 'callbacks'), 'its norm': (dict(cbs=[GradientClip(2.), Settings(1.)]), None, 'callbacks'),
          'setting of a callback': (dict(cbs=[GradientClip(1.), Settings(2.)]), None, 'callbacks'), 'metrics': (dict(metrics=mse), None, 'metrics'), 'optimizer': (dict(opt_func=partial(SGD, mom=.8)), None, 'optimizer'),
          'norm and bias': (dict(wd_bn_bias=True), None, 'wd_bn_bias'), 'train_bn': (dict(train_bn=False), None, 'train_bn'), 'frozen': ({}, lambda l: l.model[1].weight.requires_grad_(False), 'trained'),
          'training data': ({}, other_data(0, lambda ds: [(x+1, y) for x,y in ds]), 'data'), 'held-out data': ({}, other_data(1, lambda ds: [(x+1, y) for x,y in ds]), 'data'),
          'held-out items': ({}, lambda l: setattr(l.dls.valid, 'n', 95), 'data'), 'ratio of decays': (dict(wd=[.1,.2]), None, 'hypers')}

@pytest.fixture(scope='module')
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp('log')/'log'
    one_search(path)
    return path

def one_search(path, change=None, **kwargs):
    splitter = lambda m: [params(m[1])[:1], params(m[1])[1:]]
    learn = ridge(**{'dropout':.2, 'loss_func':nn.HuberLoss(), 'cbs':[GradientClip(1.), Settings(1.)], 'bias':True, 'splitter':splitter, **kwargs})
    if change: change(learn)
    return learn.balance_regularization(.05, 1, [0.,1.], seeds=2, path=path)

@pytest.mark.parametrize('name', others)
def test_the_log_of_another_experiment_is_refused(name, log):
    kwargs,change,match = others[name]
    was = log.read_bytes()
    with pytest.raises(ValueError, match=rf"another's: .*{match} is"): one_search(log, change, **kwargs)
    assert log.read_bytes() == was

def test_the_same_experiment_goes_on_after_the_learner_was_used(log, monkeypatch):
    def used(learn):
        learn.validate(); learn.get_preds(); learn.dls.one_batch()
        learn.cbs[-1].calls = 99 # state, not a setting
        torch.rand(3); random.random()
    monkeypatch.setattr(module, 'run_cycle', None) # no run is made
    one_search(log, used)

def test_new_weights_do_not_depend_on_the_old_ones(tmp_path, monkeypatch):
    def reinit(model): model[1].reset_parameters()
    want = ridge(seed=1).balance_regularization(**args, path=tmp_path/'log', reinit=reinit)
    monkeypatch.setattr(module, 'run_cycle', None)
    assert ridge(seed=2).balance_regularization(**args, path=tmp_path/'log', reinit=reinit).runs == want.runs # as in a new process
    def other(model): nn.init.ones_(model[1].weight)
    with pytest.raises(ValueError, match='weights'): ridge(seed=1).balance_regularization(**args, path=tmp_path/'log', reinit=other)

@pytest.mark.parametrize('kind', ['sgd','torch','accumulate','fp16','frozen'])
def test_a_log_leaves_the_learner_as_it_was(kind, tmp_path):
    learn = busy_learner(kind)
    learn.fit(1)
    before = snapshot(learn)
    learn.balance_regularization(.01, 1, [0.,1.], seeds=2, path=tmp_path/'log')
    same(before, snapshot(learn))

def test_data_of_every_kind_have_an_identity():
    from fastai.tabular.all import TabularDataLoaders
    from PIL import Image
    def tabular(k): return TabularDataLoaders.from_df(pd.DataFrame(dict(a=np.arange(20.)+k, y=np.arange(20.))), cont_names=['a'], y_names='y', bs=4, valid_idx=range(15, 20))
    def images(k): return DataLoader([(Image.new('L', (4,4), k),)]*20, bs=4)
    def stream(k):
        class Stream(torch.utils.data.IterableDataset):
            def __iter__(self): yield from (torch.full((4,), float(k)) for _ in range(20))
        return DataLoader(Stream(), bs=4)
    def torch_dl(k): return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.arange(20.)+k), 4, shuffle=True)
    for make in (lambda k: tabular(k).train, images, stream, torch_dl):
        seed_all(0); a = module._sample(make(0))
        seed_all(0); assert a == module._sample(make(0)) != module._sample(make(1))

# ---- processes ----

def test_processes_give_the_serial_result(serial, tmp_path):
    path = tmp_path/'log'
    learn = ridge()
    before = snapshot(learn)
    b = learn.balance_regularization(.05, 6, wds, n_jobs=2, path=path)
    assert b.runs == serial.runs and b.best == serial.best
    same(before, snapshot(learn))
    assert len(path.read_text().splitlines()) == len(b.runs)+1

def test_a_learner_that_cannot_be_pickled():
    class Lock(Callback):
        def __init__(self): self.it = threading.Lock()
    with pytest.raises(ValueError, match='n_jobs=2.*pickle'): ridge(cbs=Lock()).balance_regularization(**args, n_jobs=2)

def test_other_backends():
    from joblib import parallel_config
    want = ridge().balance_regularization(**args)
    with parallel_config(backend='multiprocessing'): assert ridge().balance_regularization(**args, n_jobs=2).runs == want.runs
    with parallel_config(backend='threading'): assert ridge().balance_regularization(**args, n_jobs=2).runs == want.runs

def test_labels_of_the_lines_do_not_meet():
    runs = {(w,d,s): dict(loss=1+w+d/1e4+.001*s, train_loss=.1, start=9., metrics={}, steps=1) for w in (0.,.1,1.) for d in (0.,.5,1.,2.) for s in range(2)}
    ax = Balance(ridge(dropout=.2), runs, [(w,d) for w in (0.,.1,1.) for d in (0.,.5,1.,2.)], [0,1], .1, 1).plot()
    ax.figure.canvas.draw()
    boxes = [t.get_window_extent() for t in ax.texts if t.get_text().startswith('dropout')]
    assert len(boxes) == 4 and not any(a.overlaps(b) for i,a in enumerate(boxes) for b in boxes[:i])

def test_critical_momentum():
    learn = make_learner()
    learn.moms = 'critical'
    mom = 1-2*math.sqrt(.04)
    assert value(learn, 'lr', lr_max=.04).effective == pytest.approx(.04/(1-mom), rel=1e-4)
    assert 'times' in value(learn, 'wd', lr_max=.04).advice
    ridge_ = ridge(); ridge_.moms = 'critical'
    assert ridge_.balance_regularization(**args).cost > 0
