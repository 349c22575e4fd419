"What a training batch is seen to drop: every spelling with its probability, and nothing else; scaled, and put back."
import math, pytest, torch
from fastai.layers import *
from fastai.text.models.awdlstm import AWD_LSTM
from torch.utils.checkpoint import checkpoint
from torchvision.models.densenet import _DenseLayer
from torchvision.models.swin_transformer import ShiftedWindowAttention
from torchvision.ops import DropBlock2d, StochasticDepth
from fastai.basics import *
from fastai.callback.all import *
from fingerprints import fingerprint, same
from small_learners import busy_kinds, busy_learner
from superconv_fastai.all import *
from superconv_fastai.dropout import watch_dropouts

def learner_of(model, x=None, loss_func=None, n=8, **kwargs):
    "A learner whose items are `x`; what it predicts is of no interest"
    x = torch.rand(n, 4) if x is None else x
    if next(model.parameters(), None) is None:
        model.register_parameter('w', nn.Parameter(torch.zeros(1))) # fastai needs one
    dls = DataLoaders(
        *(DataLoader(list(zip(x, torch.zeros(len(x)))), bs=4, num_workers=0) for _ in range(2)), device='cpu'
    )
    return Learner(dls, model, loss_func=loss_func or (lambda p,y: p.sum()), **kwargs)

def seen(model, x=None, **kwargs):
    "`{attribute or function: probability}` of what drops"
    drops,problem = watch_dropouts(learner_of(model, x, **kwargs))
    assert problem is None
    return {d.attr or d.by: pytest.approx(d.p, abs=1e-6, nan_ok=True) for d in drops}

class Plain(nn.Module):
    "A network with numbers that are no dropout, and a dropout that it does not call"
    def __init__(self, p=.3):
        super().__init__()
        self.lin,self.p,self.keep,self.top_p,self.momentum = nn.Linear(4, 4),p,.6,.9,.3
        self.norm,self.unused = nn.BatchNorm1d(4, momentum=.3),nn.Dropout(.7)
    def forward(self, x): return self.norm(self.lin(self.drop(x)))*self.top_p
    def drop(self, x): return x

alias = F.dropout
functions = {'a':F.dropout, 'b':F.alpha_dropout}

class Helper:
    "No module, with a probability of its own"
    def __init__(self, p): self.p = p
    def own(self, x): return F.dropout(x, self.p)
    def given(self, x, p): return F.dropout(x, p)

def by_hand(x, keep): return x*torch.empty_like(x).bernoulli_(keep)/keep
def in_place(x, p):
    x = x.clone()
    F.dropout(x, p, inplace=True)
    return x
def masked(x, p): return x.masked_fill(torch.empty_like(x).bernoulli_(p).bool(), 0.)
def with_where(x, p): return torch.where(torch.full_like(x, 1-p).bernoulli().bool(), x, 0.)
def turned(x, p): return x*(1-torch.bernoulli(torch.full_like(x, p)))
def times_in_place(x, p):
    x = x.clone()
    x *= torch.bernoulli(x, p=1-p)
    return x
def by_row(x, p): return x*x.new_empty(x.shape[0], 1).bernoulli_(1-p).div_(1-p).expand_as(x)
def one_switch(x, p): return x*torch.empty(1).bernoulli_(1-p)
def distribution(x, p): return x*torch.distributions.Bernoulli(1-p).sample(x.shape)

spellings = dict(
    functional=lambda m, x: F.dropout(x, m.p, m.training),
    as_float=lambda m, x: F.dropout(x, float(m.p)),
    alias=lambda m, x: alias(x, m.p),
    table=lambda m, x: functions['a'](x, p=m.p),
    table_alpha=lambda m, x: functions['b'](x, m.p, True),
    helper=lambda m, x: Helper(0.).given(x, m.p),
    nested=lambda m, x: (lambda o: nn.functional.dropout(o, m.p))(x),
    torch_dropout=lambda m, x: torch.dropout(x, m.p, True),
    in_place=lambda m, x: in_place(x, m.p),
    torch_in_place=lambda m, x: torch.dropout_(x.clone(), m.p, True),
    dropout1d=lambda m, x: F.dropout1d(x[:, None], m.p)[:, 0],
    dropout2d=lambda m, x: F.dropout2d(x[..., None, None], m.p)[..., 0, 0],
    dropout3d=lambda m, x: F.dropout3d(x[..., None, None, None], m.p)[..., 0, 0, 0],
    feature=lambda m, x: torch.feature_dropout(x, m.p, True),
    feature_alpha=lambda m, x: F.feature_alpha_dropout(x, m.p, True),
    attention=lambda m, x: F.scaled_dot_product_attention(x[None], x[None], x[None], dropout_p=m.p)[0],
    attention_by_place=lambda m, x: F.scaled_dot_product_attention(x[None], x[None], x[None], None, m.p)[0],
    bernoulli_=lambda m, x: by_hand(x, 1 - m.p),
    turned=lambda m, x: turned(x, m.p),
    masked=lambda m, x: masked(x, m.p),
    where=lambda m, x: with_where(x, m.p),
    times_in_place=lambda m, x: times_in_place(x, m.p),
    by_row=lambda m, x: by_row(x, m.p),
    one_switch=lambda m, x: one_switch(x, m.p),
    aten=lambda m, x: torch.ops.aten.dropout(x, m.p, True),
    checkpointed=lambda m, x: checkpoint(lambda o: F.dropout(o, m.p), x, use_reentrant=False),
)

def planted(drop, *args):
    class Planted(Plain):
        def drop(self, x): return drop(self, x)
    return Planted(*args)

@pytest.mark.parametrize('name', spellings)
def test_every_spelling_is_seen_and_scaled(name):
    model = planted(spellings[name])
    assert seen(model) == {'p':.3}
    learn = learner_of(model)
    with learn.reduced_regularization(dropout=.5):
        assert (model.p, model.keep, model.top_p, model.momentum, model.norm.momentum, model.unused.p) == (
            .15, .6, .9, .3, .3, .7)
        assert seen(model) == {'p':.15}
    assert model.p == .3 and type(model.p) is float

def test_a_probability_to_keep_is_converted():
    for f in (lambda m,x: by_hand(x, m.keep), lambda m,x: F.dropout(x, 1-m.keep)):
        model = planted(f)
        assert seen(model) == {'keep':.4}
        with learner_of(model).reduced_regularization(dropout=.5):
            assert model.keep == pytest.approx(.8) and model.p == .3
        assert model.keep == .6

fixed = dict(  # seen, with a probability that cannot be set
    literal=(lambda m, x: F.dropout(x, .9), {'dropout': .9}),
    own_helper=(lambda m, x: Helper(.2).own(x), {'dropout': .2}),
    computed=(lambda m, x: F.dropout(x, m.p / 2), {'dropout': .15}),
    temporary=(lambda m, x: nn.Dropout(.25)(x), {'dropout': .25}),
    mask=(lambda m, x: by_hand(x, .8), {'mul': .2}),
    tensor=(lambda m, x: x * torch.bernoulli(torch.full((4,), .75)), {'mul': .25}),
    distribution=(lambda m, x: distribution(x, .25), {'mul': .25}),
    several=(lambda m, x: x * torch.bernoulli(torch.linspace(.1, .9, 4)), {'mul': math.nan}),
)

@pytest.mark.parametrize('name', fixed)
def test_what_cannot_be_set_is_named(name):
    drop,want = fixed[name]
    model = planted(drop)
    assert seen(model) == want
    with pytest.raises(ValueError, match='no dropout to scale, only some .*Planted calls'):
        with learner_of(model).reduced_regularization(dropout=.5): pass
    both = nn.Sequential(model, nn.Dropout(.2))
    with pytest.warns(UserWarning, match=f'Planted calls {next(iter(want))} \\(0\\) with .* stays as it is'):
        with learner_of(both).reduced_regularization(dropout=.5): assert both[1].p == .1
    assert both[1].p == .2 and model.top_p == .9

none = dict(  # random, or a number like a probability, and no dropout
    silent_attention=lambda m, x: F.scaled_dot_product_attention(x[None], x[None], x[None])[0],
    evaluation=lambda m, x: F.dropout(x, m.p, False),
    added=lambda m, x: x + torch.empty_like(x).bernoulli_(m.p),
    compared=lambda m, x: x + (torch.bernoulli(torch.full_like(x, m.p)) == 1).float().sum(),
    noise=lambda m, x: x + torch.rand_like(x) * m.p,
    masked_noise=lambda m, x: x + m.p * torch.bernoulli(torch.full_like(x, .5)),
    norm=lambda m, x: F.normalize(x, p=m.top_p),
    distance=lambda m, x: torch.cdist(x, x, p=m.top_p),
    uncalled=lambda m, x: x,
    one_layer=lambda m, x: F.leaky_relu(x, m.p),
    zero=lambda m, x: F.dropout(x, 0.),
)

@pytest.mark.parametrize('name', none)
def test_what_is_no_dropout_is_not_listed(name):
    model = planted(none[name])
    assert seen(model) == {}
    with pytest.raises(ValueError, match='no dropout to scale$'):
        with learner_of(model).reduced_regularization(dropout=.5): pass

def test_equal_numbers_prove_nothing():
    "A literal that equals a number of the module, in the two places where one could be taken for the other"
    for model in (planted(lambda m,x: F.dropout(x, .9)), planted(lambda m,x: by_hand(x, .6))):
        learn = learner_of(nn.Sequential(model, nn.Dropout(.2)))
        with pytest.warns(UserWarning), learn.reduced_regularization(dropout=.5):
            assert (model.top_p, model.keep) == (.9, .6)

def image(): return torch.rand(4, 4, 8, 8)
def sequence(): return torch.rand(4, 5, 4)

class Attends(nn.Module):
    def __init__(self, **kwargs):
        super().__init__()
        self.att = nn.MultiheadAttention(4, 2, dropout=.15, batch_first=True, **kwargs)
    def forward(self, x): return self.att(x, x, x)[0]

class OwnDropout(nn.Dropout): pass
class OwnCell(nn.LSTM): pass

modules = {  # module, its items, and what drops in it
    'Dropout': (nn.Dropout(.1), None, {'p': .1}),
    'a subclass': (OwnDropout(.1), None, {'p': .1}),
    'Dropout of 0': (nn.Dropout(0), None, {'p': 0.}),
    'AlphaDropout': (nn.AlphaDropout(.1), None, {'p': .1}),
    'Dropout1d': (nn.Dropout1d(.1), sequence, {'p': .1}),
    'Dropout2d': (nn.Dropout2d(.1), image, {'p': .1}),
    'FeatureAlphaDropout': (nn.FeatureAlphaDropout(.1), image, {'p': .1}),
    'LSTM': (nn.LSTM(4, 4, 2, dropout=.2), sequence, {'dropout': .2}),
    'a subclass of LSTM': (OwnCell(4, 4, 2, dropout=.2), sequence, {'dropout': .2}),
    'GRU': (nn.GRU(4, 4, 3, dropout=.2), sequence, {'dropout': .2}),
    'RNN': (nn.RNN(4, 4, 2, dropout=.2), sequence, {'dropout': .2}),
    'LSTM with one layer': (nn.LSTM(4, 4, 1, dropout=.2), sequence, {}),
    'attention': (Attends(), sequence, {'dropout': .15}),
    'attention with biases': (Attends(add_bias_kv=True), sequence, {'dropout': .15}),
    'StochasticDepth': (StochasticDepth(.3, 'row'), image, {'p': .3}),
    'DropBlock2d': (DropBlock2d(.2, 3), image, {'p': .2}),
    'Swin attention': (ShiftedWindowAttention(4, [2, 2], [0, 0], 2, attention_dropout=.3, dropout=.2), image,
                       {'attention_dropout': .3, 'dropout': .2}),
    'DenseNet': (_DenseLayer(4, 4, 2, .1), image, {'drop_rate': .1}),
    'DenseNet of 0': (_DenseLayer(4, 4, 2, 0.), image, {}),
}

@pytest.mark.filterwarnings('ignore:dropout option adds dropout')
@pytest.mark.parametrize('name', modules)
def test_modules_of_libraries(name):
    m,x,want = modules[name]
    def loss(p, y): return sum(o.sum() for o in p) if isinstance(p, tuple) else p.sum()
    learn = learner_of(nn.Sequential(m), x and x().permute(0,2,3,1) if 'Swin' in name else x and x(), loss)
    drops,problem = watch_dropouts(learn)
    assert problem is None and {d.attr:d.p for d in drops} == want
    if not any(want.values()): return
    with learn.reduced_regularization(dropout=.5):
        assert {d.attr:d.p for d in watch_dropouts(learn)[0]} == {k:v/2 for k,v in want.items()}
    assert {d.attr:getattr(d.module, d.attr) for d in drops} == want

def test_packed_sequences():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(4, 4, 2, dropout=.2)
        def forward(self, x):
            return self.rnn(nn.utils.rnn.pack_padded_sequence(x, [5]*len(x), batch_first=True))[0].data
    assert seen(Packed(), sequence()) == {'dropout':.2}

@pytest.mark.parametrize('kwargs,want', [(dict(drop_path_rate=.2), [.1,.2]), (dict(patch_drop_rate=.25), [.25]),
                                         (dict(drop_rate=.1, attn_drop_rate=.15), [.1,.15])])
def test_vision_transformers_of_timm(kwargs, want):
    timm = pytest.importorskip('timm')
    model = timm.create_model('vit_tiny_patch16_224', num_classes=10, img_size=32, depth=3, **kwargs)
    learn = learner_of(model, torch.rand(4, 3, 32, 32))
    drops,problem = watch_dropouts(learn)
    assert problem is None and sorted({round(d.p, 6) for d in drops if d.p}) == want and all(d.attr for d in drops)
    with learn.reduced_regularization(dropout=0.): assert not any(d.p for d in watch_dropouts(learn)[0])
    assert [d.p for d in watch_dropouts(learn)[0]] == [d.p for d in drops]

def test_residual_networks_of_timm():
    timm = pytest.importorskip('timm')
    model = timm.create_model('resnet10t', drop_rate=.3, drop_path_rate=.1, drop_block_rate=.1, num_classes=10)
    found = {d.where:d.p for d in watch_dropouts(learner_of(model, torch.rand(4, 3, 64, 64)))[0]}
    assert found['drop_rate (ResNet)'] == .3 and found['layer4.0.drop_path.drop_prob (DropPath)'] == pytest.approx(.1)
    assert any('drop_block.drop_prob' in k and v==pytest.approx(.1) for k,v in found.items()), found

def test_awd_lstm_with_all_its_dropouts():
    model = AWD_LSTM(10, 4, 4, 2, hidden_p=.1, input_p=.2, embed_p=.3, weight_p=.4)
    learn = learner_of(model, torch.randint(0, 10, (8,5)), noop)
    found = {d.where:d.p for d in watch_dropouts(learn)[0] if d.p}
    assert found == {'encoder_dp.embed_p (EmbeddingDropout)': .3, 'rnns.0.weight_p (WeightDropout)': .4,
                     'input_dp.p (RNNDropout)': .2, 'rnns.1.weight_p (WeightDropout)': .4,
                     'hidden_dps.0.p (RNNDropout)': .1}
    with learn.reduced_regularization(dropout=0.): assert not any(d.p for d in watch_dropouts(learn)[0])
    assert {d.where:d.p for d in watch_dropouts(learn)[0] if d.p} == found

def test_a_module_called_dropout_is_not_a_function():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout,self.lin = nn.Dropout(.3),nn.Linear(4, 1)
        def forward(self, x): return self.lin(self.dropout(x))
    class Method(nn.Linear):
        def forward(self, x): return self.head(super().forward(x))
        def head(self, x): return F.feature_alpha_dropout(x, .1, True)
    drops,_ = watch_dropouts(learner_of(nn.Sequential(Named(), Method(1, 1))))
    assert [d.where for d in drops] == ['0.dropout.p (Dropout)', 'Method calls feature_alpha_dropout (1)']

def test_the_owner_of_the_number_is_found():
    "A parent that gives its number to a child, a child that is read but not called, a module that is used twice"
    class Child(nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = .2
        def forward(self, x, p): return F.dropout(x, p)
    class Parent(nn.Module):
        def __init__(self):
            super().__init__()
            self.child,self.idle,self.p = Child(),Child(),.3
        def forward(self, x): return self.child(self.child(F.dropout(x, self.idle.rate), self.p), self.p)
    drops,_ = watch_dropouts(learner_of(Parent()))
    assert {d.where:d.p for d in drops} == {'p (Parent)':.3, 'idle.rate (Child)':.2}

@pytest.mark.parametrize(
    'compile', [lambda m: m.compile(backend='eager'), lambda m: torch.compile(m, backend='eager'), torch.jit.script]
)
def test_compiled_networks(compile):
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(.3))
    drops,problem = watch_dropouts(learner_of(compile(model) or model))
    assert problem is None
    assert [d.p for d in drops] == ([] if compile is torch.jit.script else [.3]) # scripted code is not seen
    if compile is torch.jit.script:
        df = learner_of(compile(model)).regularizers()
        assert 'scripted' in df[df['where']=='inside Sequential'].advice.item()

@pytest.mark.parametrize('kind', busy_kinds)
@pytest.mark.parametrize('trained', [False, True])
def test_the_audit_leaves_the_learner_to_the_bit(kind, trained):
    learn = busy_learner(kind)
    if trained: learn.fit(1)
    before,attrs = fingerprint(learn),[dict(vars(m)) for m in learn.model.modules()]
    learn.regularizers()
    same(before, fingerprint(learn))
    for m,was in zip(learn.model.modules(), attrs):
        assert vars(m).keys() == was.keys() and all(vars(m)[k] is v for k,v in was.items())
    assert not nn.modules.module._global_forward_hooks and not nn.modules.module._global_forward_pre_hooks

@pytest.mark.parametrize('error', [ValueError('a fault'), KeyboardInterrupt()])
def test_a_fault_in_the_batch_leaves_no_trace(error):
    def fail(m, x): raise error
    model = nn.Sequential(nn.Dropout(.3), planted(fail))
    learn,was = learner_of(model),torch.get_rng_state()
    if isinstance(error, ValueError):
        drops,problem = watch_dropouts(learn)
        assert problem == 'ValueError: a fault' and [d.p for d in drops] == [.3]
        df = learn.regularizers()
        assert 'a fault' in df[df['where'] == 'not looked at'].advice.item() and set(df.kind) >= {
            'lr', 'wd', 'batch_size', 'norm', 'dropout'}
        with pytest.raises(ValueError, match='no training batch could be run.*a fault'):
            with learn.reduced_regularization(dropout=.5): pass
    else:
        with pytest.raises(KeyboardInterrupt): watch_dropouts(learn)
    assert type(model[0].p) is float and type(model[1].p) is float and torch.equal(was, torch.get_rng_state())
    assert not nn.modules.module._global_forward_hooks and model.training

class NoBatch(Callback):
    def before_batch(self): raise CancelBatchException()
class NoEpoch(Callback):
    def before_epoch(self): raise CancelEpochException()
class NoData:
    def __len__(self): return 8
    def __getitem__(self, i): raise OSError('the disk is gone')

def test_without_a_batch_the_rest_of_the_table_is_there():
    for cb in (NoBatch, NoEpoch):
        learn = learner_of(nn.Dropout(.3), cbs=cb())
        assert watch_dropouts(learn) == ([], 'no batch reached the model')
    learn = learner_of(nn.Dropout(.3))
    learn.dls = DataLoaders(*(DataLoader(NoData(), bs=4, num_workers=0) for _ in range(2)))
    df = learn.regularizers(lr_max=1.)
    assert 'the disk is gone' in df[df.kind=='dropout'].advice.item() and {'lr','wd','batch_size'} <= set(df.kind)

class Counts(nn.Module):
    calls = 0
    def forward(self, x):
        type(self).calls += 1
        return F.dropout(x, .3)

def test_one_batch_and_no_step():
    "Of a stream without an end one batch is taken, and no optimizer steps"
    class Stream(torch.utils.data.IterableDataset):
        taken = 0
        def __iter__(self):
            while True:
                Stream.taken += 1
                yield torch.zeros(4),torch.zeros(1)
    def no_step(*args, **kwargs): raise AssertionError('no step is taken')
    learn = learner_of(Counts())
    learn.dls = DataLoaders(*(torch.utils.data.DataLoader(Stream(), 4) for _ in range(2)), device='cpu')
    learn.opt_func = (
        lambda ps, **kwargs: setattr(opt := SGD([nn.Parameter(torch.ones(1))], **kwargs), 'step', no_step) or opt
    )
    drops,problem = watch_dropouts(learn)
    assert problem is None and [d.p for d in drops] == [.3] and Counts.calls == 1 and Stream.taken == 4

def test_callbacks_prepare_the_batch():
    "MixUp, mixed precision, a recurrent network's reset and an order of batches are those of a fit"
    seen_by = []
    class Prepares(Callback):
        def before_batch(self):
            seen_by.append((self.training, self.model.training))
            self.learn.xb = (self.xb[0]*2,)
    learn = learner_of(nn.Dropout(.3), cbs=[Prepares()])
    learn.model.eval()
    assert watch_dropouts(learn)[0] and seen_by == [(True, True)] and not learn.model.training
