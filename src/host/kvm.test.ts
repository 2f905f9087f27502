import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import { LocalMachine } from '../machine/local.ts'
import type { Machine, Process, SpawnOptions } from '../machine/machine.ts'
import { NestvmError } from '../store/error.ts'
import { kvmProbePath } from '../store/paths.ts'
import { chooseAccel } from './accel.ts'
import { hostArch } from './arch.ts'
import { kvmAnswer, paceScript } from './kvm.ts'
import { successStatus } from './probe-image.ts'

const home = process.env.XDG_STATE_HOME
const dir = mkdtempSync(join(tmpdir(), 'kvm-'))
before(() => {
  process.env.XDG_STATE_HOME = dir
})
beforeEach(() => rmSync(kvmProbePath('host'), { force: true }))
after(() => {
  rmSync(dir, { recursive: true })
  if (home === undefined) delete process.env.XDG_STATE_HOME
  else process.env.XDG_STATE_HOME = home
})

interface Seen {
  device?: 'absent' | 'denied' | 'open'
  boot?: string
  modules?: string
  flags?: string
  /** The module that is loaded and its parameter `nested`. */
  nested?: string
  /** The processor's. */
  vendor?: string
  /** How long its shell takes for ten million instructions, in seconds. */
  pace?: number
}

/** This host, but for what it shows of KVM: so the tests are the same wherever they run. */
class FakeHost implements Machine {
  readonly name = 'host'
  private readonly local = new LocalMachine()
  readonly seen: Seen
  qemuRuns = 0

  constructor(seen: Seen) {
    this.seen = seen
  }

  spawn(argv: readonly string[], options: SpawnOptions = {}): Promise<Process> {
    const script = argv[0] === 'sh' && argv[1] === '-c' ? (argv[2] ?? '') : ''
    if (script.includes('boot_id')) return this.print(this.look(), options)
    if (script.includes('parameters/nested')) return this.print(this.seen.nested ?? '', options)
    if (argv.includes('/proc/cpuinfo')) {
      return this.print(`processor\t: 0\nvendor_id\t: ${this.seen.vendor ?? ''}\nmodel\t: 1\n`, options)
    }
    if (script === paceScript) return this.local.spawn(['sleep', String(this.seen.pace ?? 0)], options)
    if (argv.includes('-machine')) this.qemuRuns++
    return this.local.spawn(argv, options)
  }

  connect(): never {
    assert.fail()
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  private look(): string {
    const { device = 'open', boot = 'boot-1', modules = 'kvm kvm_amd', flags = 'svm' } = this.seen
    return [device, boot, '1000 1000 555 0 0 0 107 660 a e8', modules, flags, ''].join('\n')
  }

  private print(text: string, options: SpawnOptions): Promise<Process> {
    return this.local.spawn(['printf', '%s', text], options)
  }
}

/** The start of a QEMU command: a script that does as it is told with the arguments that follow. */
function qemu(script: string): string[] {
  return ['sh', '-c', script, 'qemu']
}

const works = qemu(`printf RL; exit ${successStatus}`)

test('KVM is believed in when the tiny guest has run to its end', async () => {
  const answer = await kvmAnswer(new FakeHost({}), works)
  assert.equal(answer.code, 'KVM_OK')
  assert.equal(answer.usable, true)
  assert.ok(answer.milliseconds !== undefined && answer.milliseconds < 1000)
})

test('the image is there while QEMU runs, and gone afterwards', async () => {
  const copy = join(dir, 'image')
  // The argument after -bios.
  const script = `while [ "$1" != -bios ]; do shift; done; cp "$2" ${copy}; exit ${successStatus}`
  assert.equal((await kvmAnswer(new FakeHost({}), qemu(script))).usable, true)
  assert.equal(readFileSync(copy).length, 64 << 10)
  assert.deepEqual(
    readdirSync('/tmp').filter((name) => name.startsWith('nestvm-probe') && sameFile(join('/tmp', name), copy)),
    [],
  )
})

test('a QEMU that fails is quoted', async () => {
  for (const status of [0, 1, 33, 134]) {
    const answer = await kvmAnswer(new FakeHost({}), qemu(`echo first >&2; echo "cannot set MSR" >&2; exit ${status}`))
    assert.equal(answer.code, 'KVM_UNUSABLE')
    assert.equal(answer.reason, `QEMU with KVM ended with status ${status}: cannot set MSR`)
  }
})

test('a QEMU that is killed is told from one that fails', async () => {
  const { reason } = await kvmAnswer(new FakeHost({}), qemu('kill -ABRT $$'))
  assert.match(reason, /SIGABRT: without a word$/)
})

test('a guest that comes to its end too late does not count, even where it could not be ended in time', async () => {
  const host = new FakeHost({})
  const spawn = host.spawn.bind(host)
  host.spawn = async (argv, options) => ({ ...(await spawn(argv, options)), kill: () => {} })
  const answer = await kvmAnswer(host, qemu(`printf RL; sleep 1.5; exit ${successStatus}`))
  assert.match(answer.reason, /40 million instructions did not end/)
  const ended = await kvmAnswer(host, qemu('printf R; while :; do :; done'), { refresh: true })
  assert.match(ended.reason, /did not reach 64-bit mode/)
})

test('a guest that is too slow is ended, and the reason says how far it came', async () => {
  const came = { '': /executed nothing/, R: /did not reach 64-bit mode/, RL: /40 million instructions did not end/ }
  for (const [said, reason] of Object.entries(came)) {
    const start = performance.now()
    const answer = await kvmAnswer(new FakeHost({}), qemu(`printf '%s' '${said}'; exec sleep 60`))
    assert.equal(answer.code, 'KVM_UNUSABLE')
    assert.match(answer.reason, reason)
    assert.ok(performance.now() - start < 10_000)
  }
})

test('where the machine itself is slow, as an emulated one is, the guest may take longer', async () => {
  const slow = qemu(`printf RL; sleep 1.5; exit ${successStatus}`)
  assert.match((await kvmAnswer(new FakeHost({}), slow)).reason, /did not end within 1 s/)
  assert.equal((await kvmAnswer(new FakeHost({ pace: 0.2 }), slow, { refresh: true })).code, 'KVM_OK')
})

test('a KVM that does without the hardware is named as the cause', async () => {
  const fails = qemu('exit 1')
  const pvm = await kvmAnswer(new FakeHost({ modules: 'kvm kvm_pvm ', flags: '' }), fails)
  assert.match(pvm.reason, /kvm_pvm/)
  const other = await kvmAnswer(new FakeHost({ modules: 'kvm ', flags: '' }), fails)
  assert.match(other.reason, /neither vmx nor svm/)
})

test('without the device or the right to open it, nothing is started, and the hint mends it', async () => {
  const denied = new FakeHost({ device: 'denied' })
  const refused = await kvmAnswer(denied, works)
  assert.equal(refused.code, 'KVM_PERMISSION')
  assert.match(refused.hint ?? '', /usermod/)

  const absent = await kvmAnswer(new FakeHost({ device: 'absent', flags: 'vmx ' }), works)
  assert.equal(absent.code, 'KVM_ABSENT')
  assert.equal(absent.hint, 'sudo modprobe kvm_intel')
  const nothing = await kvmAnswer(new FakeHost({ device: 'absent', flags: '' }), works)
  assert.equal(nothing.hint, undefined)
  assert.equal(denied.qemuRuns, 0)
})

test('the answer is kept until the next boot, another QEMU, or until asked again', async () => {
  const host = new FakeHost({})
  const first = await kvmAnswer(host, works)
  assert.deepEqual(await kvmAnswer(host, works), first)
  assert.equal(host.qemuRuns, 1)

  await kvmAnswer(host, works, { refresh: true })
  assert.equal(host.qemuRuns, 2)
  await kvmAnswer(host, [...works, '-L', '/other'])
  assert.equal(host.qemuRuns, 3)
  const rebooted = new FakeHost({ boot: 'boot-2' })
  await kvmAnswer(rebooted, works)
  assert.equal(rebooted.qemuRuns, 1)
})

test('an abort ends the question with its reason, and nothing is remembered', async () => {
  const control = new AbortController()
  const asking = kvmAnswer(new FakeHost({}), qemu('exec sleep 60'), { signal: control.signal })
  setTimeout(() => control.abort(new Error('enough')), 100)
  await assert.rejects(asking, /enough/)
  assert.ok(!existsSync(kvmProbePath('host')))
})

test('emulation that was asked for asks nothing of KVM', async () => {
  const host = new FakeHost({})
  const choice = await chooseAccel('tcg', host, works, { nested: true, arch: hostArch() })
  assert.deepEqual(choice, { accel: 'tcg', reason: 'emulation was asked for' })
  assert.equal(host.qemuRuns, 0)
})

test('auto takes KVM that works, and otherwise says why it emulates', async () => {
  assert.equal((await chooseAccel('auto', new FakeHost({}), works, { nested: false, arch: hostArch() })).accel, 'kvm')
  const choice = await chooseAccel('auto', new FakeHost({ device: 'absent', flags: '' }), works, {
    nested: false,
    arch: hostArch(),
  })
  assert.equal(choice.accel, 'tcg')
  assert.match(choice.reason, /^KVM is not used: there is no \/dev\/kvm/)
})

test('kvm that was asked for fails rather than falls back, with the reason and what mends it', async () => {
  const error = await chooseAccel('kvm', new FakeHost({ device: 'denied' }), works, {
    nested: false,
    arch: hostArch(),
  }).catch((thrown: unknown) => thrown)
  assert.ok(error instanceof NestvmError)
  assert.equal(error.code, 'KVM_PERMISSION')
  assert.match(error.hint ?? '', /usermod/)
  assert.equal(error.exitStatus, 125)
})

test('a KVM without nesting serves guests that do not nest', async () => {
  for (const nested of ['kvm_intel N\n', 'kvm_amd 0\n']) {
    const host = new FakeHost({ nested })
    assert.equal((await chooseAccel('auto', host, works, { nested: false, arch: hostArch() })).accel, 'kvm')
    assert.equal((await chooseAccel('auto', host, works, { nested: true, arch: hostArch() })).accel, 'tcg')
    await assert.rejects(chooseAccel('kvm', host, works, { nested: true, arch: hostArch() }), {
      code: 'NESTED_DISABLED',
    })
  }
  for (const nested of ['kvm_intel Y\n', 'kvm_amd 1\n', '']) {
    assert.equal(
      (await chooseAccel('kvm', new FakeHost({ nested }), works, { nested: true, arch: hostArch() })).accel,
      'kvm',
    )
  }
})

test('on arm64 a KVM is tried once more with EL2 for the guest, and the answer says why it has none', async () => {
  const arm64 = { flags: 'CPU implementer' }
  const plain = 'case $* in *virtualization=off*) printf RL1E; exit ;; esac'
  const refuses = qemu(`${plain}; echo 'mach-virt: no Virtualization extensions' >&2; exit 1`)
  const without = await kvmAnswer(new FakeHost(arm64), refuses)
  assert.equal(without.usable, true)
  assert.match(without.nestingRefused ?? '', /no Virtualization extensions/)
  const offers = await kvmAnswer(new FakeHost(arm64), qemu(`${plain}; printf RL2E`), { refresh: true })
  assert.equal(offers.nestingRefused, undefined)
  // A guest that was to have EL2 and runs at EL1 is not what was asked for.
  const lowers = await kvmAnswer(new FakeHost(arm64), qemu('printf RL1E'), { refresh: true })
  assert.match(lowers.nestingRefused ?? '', /status 0/)
})

test('guests of another architecture are emulated, and KVM is not asked', async () => {
  const host = new FakeHost({})
  const other = hostArch() === 'arm64' ? 'x86_64' : 'arm64'
  const choice = await chooseAccel('auto', host, works, { nested: true, arch: other })
  assert.equal(choice.accel, 'tcg')
  assert.match(choice.reason, new RegExp(`the guests are ${other}`))
  await assert.rejects(chooseAccel('kvm', host, works, { nested: true, arch: other }), { code: 'KVM_UNUSABLE' })
  assert.equal(host.qemuRuns, 0)
})

test("KVM counts only on a processor of the vendor that is asked for, and is not tried on another's", async () => {
  const options = { nested: true, arch: hostArch(), vendor: 'intel' } as const
  const intel = new FakeHost({ vendor: 'GenuineIntel', nested: 'kvm_intel Y\n' })
  assert.equal((await chooseAccel('auto', intel, works, options)).accel, 'kvm')
  const amd = new FakeHost({ vendor: 'AuthenticAMD' })
  const choice = await chooseAccel('auto', amd, works, options)
  assert.deepEqual(choice, {
    accel: 'tcg',
    reason: "KVM is not used: the processor is AuthenticAMD, and Intel's was asked for",
  })
  assert.equal(amd.qemuRuns, 0)
  await assert.rejects(chooseAccel('kvm', amd, works, options), { code: 'KVM_UNUSABLE' })
})

function sameFile(a: string, b: string): boolean {
  return existsSync(a) && readFileSync(a).equals(readFileSync(b))
}
