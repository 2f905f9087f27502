import assert from 'node:assert/strict'
import { test } from 'node:test'
import { exampleSeen, loaded } from './example-seen.ts'
import type { Plan, Request } from './plan.ts'
import { planS390x } from './s390x.ts'
import type { Seen } from './seen.ts'
import { planKvmX86 } from './x86.ts'

const ownFile = '/etc/modprobe.d/zz-nestvm.conf'
const at = (seen: Seen, root = '/'): Request => ({ seen, root, user: 'root' })

const written = ({ steps }: Plan) =>
  steps.flatMap((step) => (step.kind === 'file' ? [[step.path, step.after] as const] : []))
const run = ({ steps }: Plan) => steps.flatMap((step) => (step.kind === 'command' ? [step.argv.join(' ')] : []))

/** An AMD machine whose module is as given. */
const amd = (nested: string, changes: Partial<Seen> = {}) =>
  exampleSeen({ cpuFlags: new Set(['svm']), modules: new Map([['kvm_amd', loaded({ nested, npt: 'Y' })]]), ...changes })

test('a module that is loaded without nesting gets a file of options, and is loaded anew', () => {
  const plan = planKvmX86('amd', at(amd('0')))
  const [[path, text] = []] = written(plan)
  assert.equal(path, ownFile)
  assert.match(text ?? '', /^options kvm_amd nested=1$/m)
  assert.deepEqual(run(plan), ['modprobe -r kvm_amd', 'modprobe kvm_amd nested=1'])
  assert.deepEqual([plan.effect, plan.notes], ['now', []])
})

test('taking it back loads the module as it was', () => {
  const [, , load] = planKvmX86('amd', at(amd('0'))).steps
  assert.deepEqual(load?.kind === 'command' && load.undo, [
    ['modprobe', '-r', 'kvm_amd'],
    ['modprobe', 'kvm_amd', 'nested=0'],
  ])
})

test('what is on, however the kernel writes it, is left alone', () => {
  for (const on of ['1', 'Y', 'y']) assert.deepEqual(planKvmX86('amd', at(amd(on))).effect, 'already', on)
  const intel = { cpuFlags: new Set(['vmx']), modules: new Map([['kvm_intel', loaded({ nested: 'Y' })]]) }
  assert.deepEqual(planKvmX86('intel', at(exampleSeen(intel))).steps, [])
})

test('on Linux before 4.20 what was turned on by hand is written down, since Intel has it off by default there', () => {
  const seen = exampleSeen({
    ...{
      kernelRelease: '4.19.0-1',
      cpuFlags: new Set(['vmx']),
      modules: new Map([['kvm_intel', loaded({ nested: 'Y' })]]),
    },
  })
  const plan = planKvmX86('intel', at(seen))
  assert.match(written(plan)[0]?.[1] ?? '', /options kvm_intel nested=1/)
  assert.deepEqual(run(plan), [])
})

test('a file that says otherwise is corrected in its place, with all else in it', () => {
  const text = '# ours\noptions kvm-amd  avic=1 nested=0 \\\n  npt=1 # why\nblacklist floppy\n'
  const plan = planKvmX86('amd', at(amd('0', { files: new Map([['/etc/modprobe.d/kvm.conf', text]]) })))
  assert.deepEqual(written(plan), [['/etc/modprobe.d/kvm.conf', text.replace('nested=0', 'nested=1')]])
})

test('what would turn it off at the next start is corrected even while it is on', () => {
  const files = new Map([['/etc/modprobe.d/kvm.conf', 'options kvm_amd nested=0\n']])
  const plan = planKvmX86('amd', at(amd('1', { files })))
  assert.deepEqual(written(plan), [['/etc/modprobe.d/kvm.conf', 'options kvm_amd nested=1\n']])
  assert.deepEqual(run(plan), [])
})

test("a distribution's file is not changed: a later one of ours counts more", () => {
  const files = new Map([['/usr/lib/modprobe.d/kvm.conf', 'options kvm_amd nested=0\n']])
  assert.deepEqual(
    written(planKvmX86('amd', at(amd('0', { files })))).map(([path]) => path),
    [ownFile],
  )
})

test('options of other modules, and in comments, mean nothing', () => {
  const files = new Map([
    ['/etc/modprobe.d/x.conf', '# options kvm_amd nested=1\noptions kvm_amd_x nested=1\noptions kvm nested=1\n'],
  ])
  assert.deepEqual(
    written(planKvmX86('amd', at(amd('0', { files })))).map(([path]) => path),
    [ownFile],
  )
})

test('a module in use is not touched: who uses it, and what to do then, is said', () => {
  const seen = amd('0', { holders: [{ pid: 7, name: 'qemu-system-x86' }] })
  const plan = planKvmX86('amd', at(seen))
  assert.deepEqual([run(plan), plan.effect, written(plan).length], [[], 'reload', 1])
  assert.match(plan.notes.join(), /qemu-system-x86 \(7\).*modprobe -r kvm_amd && modprobe kvm_amd nested=1/)
  const unseen = amd('0', { uid: 1000, modules: new Map([['kvm_amd', loaded({ nested: '0' }, 2)]]) })
  assert.match(planKvmX86('amd', at(unseen)).notes.join(), /only root may see/)
})

test('a second look at a busy machine whose file is written plans nothing more', () => {
  const files = new Map([[ownFile, 'options kvm_amd nested=1\n']])
  const plan = planKvmX86('amd', at(amd('0', { files, holders: [{ pid: 7, name: 'qemu' }] })))
  assert.deepEqual([plan.steps, plan.effect], [[], 'reload'])
})

test('a module that is not loaded is loaded', () => {
  const plan = planKvmX86('amd', at(exampleSeen({ cpuFlags: new Set(['svm']) })))
  assert.deepEqual(run(plan), ['modprobe kvm_amd nested=1'])
})

test('KVM that is built in gets its parameter from the command line, by GRUB', () => {
  const modules = new Map([['kvm_amd', { ...loaded({ nested: '0' }), builtIn: true, users: undefined }]])
  const files = new Map([['/etc/default/grub', 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n']])
  const plan = planKvmX86('amd', at(amd('0', { modules, files, programs: new Set(['update-grub']) })))
  assert.deepEqual(written(plan), [['/etc/default/grub', 'GRUB_CMDLINE_LINUX_DEFAULT="quiet kvm_amd.nested=1"\n']])
  assert.deepEqual([run(plan), plan.effect], [['update-grub'], 'reboot'])
})

test("the kernel's command line that says otherwise is corrected too", () => {
  const files = new Map([['/etc/default/grub', "GRUB_CMDLINE_LINUX='kvm-amd.nested=0 quiet'\n"]])
  const plan = planKvmX86('amd', at(amd('0', { files, commandLine: 'quiet kvm-amd.nested=0' })))
  assert.deepEqual(written(plan).at(-1), ['/etc/default/grub', "GRUB_CMDLINE_LINUX='kvm_amd.nested=1 quiet'\n"])
})

test('shadow VMCS and EPT that were turned off are turned on where the processor has them', () => {
  const modules = new Map([['kvm_intel', loaded({ nested: 'N', enable_shadow_vmcs: 'N', ept: 'N' })]])
  const has = exampleSeen({ cpuFlags: new Set(['vmx', 'ept']), vmxFlags: new Set(['shadow_vmcs']), modules })
  assert.deepEqual(run(planKvmX86('intel', at(has))).at(-1), 'modprobe kvm_intel nested=1 ept=1 enable_shadow_vmcs=1')
  const lacks = exampleSeen({ cpuFlags: new Set(['vmx']), modules })
  assert.deepEqual(run(planKvmX86('intel', at(lacks))).at(-1), 'modprobe kvm_intel nested=1')
})

test('in another root directory only files are written, whatever runs here', () => {
  const plan = planKvmX86('amd', at(amd('1'), '/mnt/disk'))
  assert.deepEqual(
    written(plan).map(([path]) => path),
    [`/mnt/disk${ownFile}`],
  )
  assert.deepEqual(run(plan), [])
})

test('without the extension nothing is planned; the firmware is named where it is to blame', () => {
  const log = '[    0.1] x86/cpu: VMX (outside TXT) disabled by BIOS'
  assert.throws(() => planKvmX86('intel', at(exampleSeen({ log }))), {
    code: 'NO_VIRTUALIZATION',
    message: /firmware.*VMX \(outside TXT\)/,
  })
  assert.throws(() => planKvmX86('amd', at(exampleSeen({ cpuFlags: new Set(['hypervisor']) }))), {
    message: /virtual machine/,
  })
})

test('s390x: nested is for the module kvm, which does not load with hpage too', () => {
  const modules = new Map([['kvm', loaded({ nested: '0', hpage: '1' })]])
  const files = new Map([['/etc/modprobe.d/kvm.conf', 'options kvm hpage=1\n']])
  const plan = planS390x(at(exampleSeen({ arch: 's390x', cpuFlags: new Set(['sie']), modules, files })))
  assert.deepEqual(written(plan), [
    ['/etc/modprobe.d/kvm.conf', 'options kvm hpage=0\n'],
    [ownFile, '# Written by nestvm enable; nestvm enable --undo removes it.\noptions kvm nested=1\n'],
  ])
  assert.deepEqual(run(plan), ['modprobe -r kvm', 'modprobe kvm nested=1 hpage=0'])
  assert.match(plan.notes.join(), /huge pages/)
})

test('s390x: without huge pages hpage is not mentioned; a guest without sie is told', () => {
  const plan = planS390x(
    at(exampleSeen({ arch: 's390x', modules: new Map([['kvm', loaded({ nested: '0', hpage: '0' })]]) })),
  )
  assert.deepEqual(run(plan), ['modprobe -r kvm', 'modprobe kvm nested=1'])
  assert.match(plan.notes.join(), /sie/)
})
