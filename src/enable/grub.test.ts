import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LocalMachine } from '../machine/local.ts'
import { run as run_ } from '../machine/run.ts'
import { planArm64 } from './arm64.ts'
import { exampleSeen } from './example-seen.ts'
import { bootArgument, planBootArguments } from './grub.ts'
import type { Step } from './plan.ts'
import type { Seen } from './seen.ts'

const main = '/etc/default/grub'
const nested = { name: 'kvm-arm.mode', value: 'nested' }

const plan = (changes: Partial<Seen>, root = '/') => planBootArguments(exampleSeen(changes), root, [nested], 'why')
const written = (steps: readonly Step[]) =>
  steps.flatMap((step) => (step.kind === 'file' ? [[step.path, step.after]] : []))
const run = (steps: readonly Step[]) => steps.flatMap((step) => (step.kind === 'command' ? [step.argv.join(' ')] : []))
const grub = (text: string) => written(plan({ files: new Map([[main, text]]) }).steps)

test('where files are dropped in, the main one is left alone', () => {
  const { steps } = plan({
    ...{ directories: new Set(['/etc/default/grub.d']), files: new Map([[main, 'GRUB_TIMEOUT=5\n']]) },
    programs: new Set(['update-grub', 'grub-mkconfig']),
  })
  const [[path, text] = []] = written(steps)
  assert.equal(path, '/etc/default/grub.d/zz-nestvm.cfg')
  assert.match(text ?? '', /^GRUB_CMDLINE_LINUX_DEFAULT="\$GRUB_CMDLINE_LINUX_DEFAULT kvm-arm\.mode=nested"$/m)
  assert.deepEqual(run(steps), ['update-grub'])
})

test('else the argument is added to the variable that there is, however it is quoted', () => {
  for (const [before, after] of [
    [
      'GRUB_CMDLINE_LINUX_DEFAULT="quiet splash" # ours\n',
      'GRUB_CMDLINE_LINUX_DEFAULT="quiet splash kvm-arm.mode=nested" # ours\n',
    ],
    ["GRUB_CMDLINE_LINUX='a'\n", "GRUB_CMDLINE_LINUX='a kvm-arm.mode=nested'\n"],
    ['GRUB_CMDLINE_LINUX=quiet\nGRUB_X=1', 'GRUB_CMDLINE_LINUX="quiet kvm-arm.mode=nested"\nGRUB_X=1'],
    ['GRUB_CMDLINE_LINUX=""\n', 'GRUB_CMDLINE_LINUX="kvm-arm.mode=nested"\n'],
    [
      'GRUB_CMDLINE_LINUX="a"\nGRUB_CMDLINE_LINUX_DEFAULT="b"\n',
      'GRUB_CMDLINE_LINUX="a"\nGRUB_CMDLINE_LINUX_DEFAULT="b kvm-arm.mode=nested"\n',
    ],
    [
      '# GRUB_CMDLINE_LINUX="a"',
      '# GRUB_CMDLINE_LINUX="a"\nGRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX kvm-arm.mode=nested"\n',
    ],
  ])
    assert.deepEqual(grub(before ?? ''), [[main, after]])
})

test('another value is changed in its place; the same one needs nothing', () => {
  assert.deepEqual(grub('GRUB_CMDLINE_LINUX="kvm_arm.mode=protected x"\n'), [
    [main, 'GRUB_CMDLINE_LINUX="kvm-arm.mode=nested x"\n'],
  ])
  const { steps, effect } = plan({ files: new Map([[main, 'GRUB_CMDLINE_LINUX="kvm-arm.mode=nested"\n']]) })
  assert.deepEqual([steps, effect], [[], 'reboot'])
})

test('what makes the configuration is what there is', () => {
  const files = new Map([[main, 'GRUB_CMDLINE_LINUX=""\n']])
  const with_ = (...programs: string[]) => run(plan({ files, programs: new Set(programs) }).steps)
  assert.deepEqual(with_('grubby', 'grub2-mkconfig'), ['grubby --update-kernel=ALL --args=kvm-arm.mode=nested'])
  assert.deepEqual(with_('grub2-mkconfig'), ['grub2-mkconfig -o /boot/grub2/grub.cfg'])
  assert.deepEqual(with_('grub-mkconfig'), ['grub-mkconfig -o /boot/grub/grub.cfg'])
})

test('in another root directory the command is said rather than run; without GRUB, the argument', () => {
  const elsewhere = plan(
    { files: new Map([[main, 'GRUB_CMDLINE_LINUX=""\n']]), programs: new Set(['update-grub']) },
    '/mnt',
  )
  assert.deepEqual([written(elsewhere.steps)[0]?.[0], run(elsewhere.steps)], ['/mnt/etc/default/grub', []])
  assert.match(elsewhere.notes.join(), /update-grub/)
  const none = plan({})
  assert.deepEqual([none.steps, none.effect], [[], 'elsewhere'])
  assert.match(none.notes.join(), /kvm-arm\.mode=nested/)
})

test('of several arguments all come into one file', () => {
  const seen = exampleSeen({ files: new Map([[main, 'GRUB_CMDLINE_LINUX="a"\n']]) })
  const { steps } = planBootArguments(seen, '/', [nested, { name: 'b.c', value: '1' }], 'why')
  assert.deepEqual(written(steps), [[main, 'GRUB_CMDLINE_LINUX="a kvm-arm.mode=nested b.c=1"\n']])
})

test('the last argument of a name counts', () => {
  assert.equal(bootArgument('a.b=1 x a-c.d=2 a_c.d=3', 'a-c.d'), '3')
  assert.equal(bootArgument('xkvm-arm.mode=nested', 'kvm-arm.mode'), undefined)
})

test('arm64: started with the argument, nothing is to do; at EL1, nothing can be', () => {
  const arm = (changes: Partial<Seen>) =>
    planArm64({ seen: exampleSeen({ arch: 'aarch64', kernelRelease: '6.18.0', ...changes }), root: '/', user: 'root' })
  assert.equal(arm({ commandLine: 'kvm-arm.mode=nested' }).effect, 'already')
  assert.match(
    arm({ commandLine: 'kvm-arm.mode=nested', log: 'kvm [1]: VHE mode initialized successfully' }).notes.join(),
    /FEAT_NV2/,
  )
  assert.throws(() => arm({ log: 'kvm [1]: HYP mode not available' }), { code: 'NO_VIRTUALIZATION' })
  const files = new Map([[main, 'GRUB_CMDLINE_LINUX=""\n']])
  assert.equal(arm({ files }).effect, 'reboot')
  assert.match(arm({ files, kernelRelease: '6.12.1' }).notes.join(), /older than 6\.16/)
})

test('a shell, by which GRUB reads its configuration, gets the argument once, after what there was', async () => {
  const texts = [
    'GRUB_CMDLINE_LINUX_DEFAULT="quiet \\"a b\\"" # ours\n',
    "GRUB_CMDLINE_LINUX_DEFAULT='quiet'\n",
    'GRUB_CMDLINE_LINUX_DEFAULT=quiet\n',
    'GRUB_CMDLINE_LINUX_DEFAULT="quiet $(echo x)"\n',
    'GRUB_CMDLINE_LINUX_DEFAULT="quiet"; GRUB_TIMEOUT=1\n',
  ]
  for (const directories of [new Set<string>(), new Set(['/etc/default/grub.d'])]) {
    for (const text of texts) {
      const { steps } = plan({ files: new Map([[main, text]]), directories })
      const added = steps.flatMap((step) => (step.kind === 'file' ? [step.after ?? ''] : [])).join('')
      const value = async (script: string) =>
        (await run_(new LocalMachine(), ['sh', '-c', `${script}\nprintf %s "$GRUB_CMDLINE_LINUX_DEFAULT"`])).stdout
      const before = await value(text)
      assert.equal(await value(directories.size > 0 ? text + added : added), `${before} kvm-arm.mode=nested`, text)
    }
  }
})
