import assert from 'node:assert/strict'
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { LocalMachine } from '../machine/local.ts'
import { apply } from './apply.ts'
import { type EnableRequest, enable, prepare, prepareUndo } from './enable.ts'
import type { Plan } from './plan.ts'
import { look } from './seen.ts'
import { planUndo, undo } from './undo.ts'

const machine = new LocalMachine()
let root: string
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'enable-'))
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

const file = (path: string) => join(root, path)
const put = (path: string, text: string) => {
  mkdirSync(join(file(path), '..'), { recursive: true })
  writeFileSync(file(path), text)
}
const text = (path: string) => readFileSync(file(path), 'utf8')
const request = (changes: Partial<EnableRequest> = {}): EnableRequest => {
  return { machine, root, platform: 'intel', acrn: { cpus: new Map() }, ...changes }
}
const everything = () =>
  readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((path) => statSync(file(path)).isFile())
    .sort()
    .map((path) => [path, text(path)])

test('a system in a directory is enabled, once; undone, it is as before', async () => {
  put('etc/modprobe.d/kvm.conf', 'options kvm_intel nested=0 ept=1\n')
  const before = everything()
  await enable(request(), await prepare(request()))
  assert.equal(text('etc/modprobe.d/kvm.conf'), 'options kvm_intel nested=1 ept=1\n')
  const after = everything()
  const again = await prepare(request())
  assert.deepEqual(
    again.map(({ plan }) => [plan.effect, plan.steps]),
    [['already', []]],
  )
  await enable(request(), again)
  assert.deepEqual(everything(), after)
  for (const plan of await prepareUndo(request())) await undo(machine, plan)
  assert.deepEqual(everything(), before)
})

test('a copy of a file as it was is kept beside the journal', async () => {
  put('etc/default/grub', 'GRUB_CMDLINE_LINUX=""\n')
  await enable(request({ platform: 'arm64' }), await prepare(request({ platform: 'arm64' })))
  const kept = everything().filter(([path]) => path?.includes('.before/') && path.endsWith('etc/default/grub'))
  assert.deepEqual(
    kept.map(([, content]) => content),
    ['GRUB_CMDLINE_LINUX=""\n'],
  )
})

test('what somebody has changed since is left alone, and the copy stays', async () => {
  put('etc/default/grub', 'GRUB_CMDLINE_LINUX=""\n')
  const arm = request({ platform: 'arm64' })
  await enable(arm, await prepare(arm))
  put('etc/default/grub', 'GRUB_CMDLINE_LINUX="theirs"\n')
  const [plan] = await prepareUndo(arm)
  assert.ok(plan)
  assert.match(plan.notes.join(), /somebody else/)
  await undo(machine, plan)
  assert.equal(text('etc/default/grub'), 'GRUB_CMDLINE_LINUX="theirs"\n')
  assert.equal((await prepareUndo(arm)).length, 1)
})

test('two changes of one file are undone to what was before the first', async () => {
  put('x', 'one\n')
  const book = { dir: file('journal'), name: 'intel' }
  const plan = (before: string, after: string): Plan => ({
    ...{ platform: 'intel', summary: '', effect: 'now', notes: [] },
    steps: [{ kind: 'file', path: file('x'), before, after, why: '' }],
  })
  await apply({ machine }, book, plan('one\n', 'two\n'))
  await apply({ machine }, book, plan('two\n', 'three\n'))
  await undo(machine, await planUndo(machine, book))
  assert.equal(text('x'), 'one\n')
  assert.ok(!existsSync(file('journal/intel.json')))
})

test('a file that has changed since it was looked at is not overwritten', async () => {
  put('etc/modprobe.d/kvm.conf', 'options kvm_intel nested=0\n')
  const prepared = await prepare(request())
  put('etc/modprobe.d/kvm.conf', 'options kvm_intel nested=0 ept=0\n')
  await assert.rejects(enable(request(), prepared), { code: 'CHANGED_MEANWHILE' })
  assert.equal(text('etc/modprobe.d/kvm.conf'), 'options kvm_intel nested=0 ept=0\n')
})

test('mode and links stay, and no other file is left', async () => {
  put('etc/modprobe.d/real', 'options kvm_intel nested=0\n')
  chmodSync(file('etc/modprobe.d/real'), 0o640)
  symlinkSync('real', file('etc/modprobe.d/kvm.conf'))
  await enable(request(), await prepare(request()))
  assert.equal(text('etc/modprobe.d/real'), 'options kvm_intel nested=1\n')
  assert.equal(statSync(file('etc/modprobe.d/real')).mode & 0o777, 0o640)
  assert.ok(lstatSync(file('etc/modprobe.d/kvm.conf')).isSymbolicLink())
  assert.deepEqual(readdirSync(file('etc/modprobe.d')).sort(), ['kvm.conf', 'real'])
})

test('a command that fails ends it there; what was done before is undone', async () => {
  const book = { dir: file('journal'), name: 'intel' }
  const done: Plan = {
    ...{ platform: 'intel', summary: '', effect: 'now', notes: [] },
    steps: [
      { kind: 'file', path: file('a'), before: undefined, after: 'a\n', why: '' },
      { kind: 'command', argv: ['touch', file('made')], undo: [['rm', file('made')]], why: '' },
      { kind: 'command', argv: ['false'], undo: [['touch', file('never')]], why: '' },
    ],
  }
  await assert.rejects(apply({ machine }, book, done), { code: 'COMMAND_FAILED' })
  assert.deepEqual([existsSync(file('a')), existsSync(file('made'))], [true, true])
  await undo(machine, await planUndo(machine, book))
  assert.deepEqual([existsSync(file('a')), existsSync(file('made')), existsSync(file('never'))], [false, false, false])
})

test('nothing to undo is an error, and so is a damaged journal', async () => {
  await assert.rejects(prepareUndo(request()), { code: 'NOTHING_TO_UNDO' })
  put('var/lib/nestvm/enable/intel.json', '{"version":2}')
  await assert.rejects(prepareUndo(request()), { code: 'BAD_RECORD' })
})

test('looking at this machine finds what it is, and the files of another root directory', async () => {
  put('etc/modprobe.d/a.conf', 'options kvm nested=1\n\n')
  put('etc/default/grub.d/x.cfg', '')
  const seen = await look(machine, { root })
  assert.equal(`${seen.kernelRelease}\n`, readFileSync('/proc/sys/kernel/osrelease', 'utf8'))
  assert.equal(seen.uid, process.getuid?.())
  assert.ok(seen.cpuFlags.size > 0 && seen.programs.size > 0)
  assert.deepEqual([...seen.files].sort(), [
    ['/etc/default/grub.d/x.cfg', ''],
    ['/etc/modprobe.d/a.conf', 'options kvm nested=1\n\n'],
  ])
  assert.ok(seen.directories.has('/etc/default/grub.d'))
})
