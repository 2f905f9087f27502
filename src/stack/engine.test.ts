import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Capability } from '../engine/capability.ts'
import { bootRequests } from '../engine/firecracker/boot.ts'
import { ExampleFirecracker } from '../engine/firecracker/example-server.ts'
import { exampleSpec } from '../engine/firecracker/example-spec.ts'
import { LocalMachine } from '../machine/local.ts'
import { qemuSpec } from './describe.ts'
import { type Asked, checkEngine, engineStart, tell } from './engine.ts'
import { exampleRecord } from './example-record.ts'
import { planStack, type StackRequest } from './plan.ts'
import { sshAddress } from './reach.ts'
import type { GuestRecord } from './record.ts'

const machine = new LocalMachine()
const never = new AbortController().signal
const requests = bootRequests(exampleSpec)
const bodyOf = ({ body }: { body: object }) => body
const place = {
  ...{ machine, qemu: [], kernel: '', kernelArguments: '', baseInitrd: '', containerInitrd: '', volumeInitrd: '' },
  counterKhz: undefined,
}

async function launched(script: string) {
  const process = await machine.spawn(['sh', '-c', script])
  process.stdin.end()
  return { pid: process.pid ?? 0, process, up: Promise.resolve(), [Symbol.dispose]: () => process.kill('SIGKILL') }
}

test('an engine is told what its guest is to be as soon as it listens', async () => {
  await using firecracker = new ExampleFirecracker()
  using engine = await launched('exec sleep 60')
  const told = tell(machine, engine, firecracker.socket, requests, never)
  await sleep(100)
  await firecracker.listen()
  await told
  assert.equal(firecracker.state, 'Running')
})

test('what it refuses is an error at once', async () => {
  await using firecracker = await new ExampleFirecracker({ refuse: { '/actions': 'no KVM' } }).listen()
  using engine = await launched('exec sleep 60')
  await assert.rejects(tell(machine, engine, firecracker.socket, requests, never), {
    code: 'API_ERROR',
    message: /no KVM/,
  })
})

test('an engine that ends at once is not waited for', async () => {
  await using firecracker = new ExampleFirecracker()
  using engine = await launched('exit 3')
  await assert.rejects(tell(machine, engine, firecracker.socket, requests, never), {
    code: 'GUEST_DIED',
    message: /ended during the start \(status 3\)/,
  })
})

test('where the connection breaks because the engine ended, that is the reason', async () => {
  await using firecracker = await new ExampleFirecracker({ breakAt: '/actions' }).listen()
  using engine = await launched('read x; exit 148')
  connect(firecracker.socket).destroy()
  await assert.rejects(tell(machine, engine, firecracker.socket, requests, never), {
    code: 'GUEST_DIED',
    message: /status 148/,
  })
})

test('an engine that says nothing is given up when the limit comes', async () => {
  await using firecracker = new ExampleFirecracker()
  using engine = await launched('exec sleep 60')
  const limit = new AbortController()
  setTimeout(() => limit.abort(), 50)
  await assert.rejects(tell(machine, engine, firecracker.socket, requests, limit.signal), { name: 'AbortError' })
})

test('on a host it is on the bridge by its only network card, and is the program that was named', () => {
  const bridge = { tap: 'n1', address: '198.19.0.2', nft: [] }
  const program = { path: '/home/me/firecracker', data: Buffer.alloc(0), pathInGuest: '/run/fc', gives: [] }
  const started = (fields: Partial<GuestRecord>) => {
    const record = exampleRecord('a', { engine: 'firecracker', accel: 'kvm', ...fields })
    const { command, requests } = engineStart(record, place, qemuSpec(record, place, false, []), program)
    return { program: command[6], cards: requests.filter(({ path }) => path.startsWith('/network')).map(bodyOf) }
  }
  const card = { iface_id: 'eth0', host_dev_name: 'n1', guest_mac: '52:54:01:01:00:01' }
  assert.deepEqual(started({ bridge, network: 'bridged' }), { program: '/home/me/firecracker', cards: [card] })
  const inner = { ...card, host_dev_name: 't1', guest_mac: '52:54:00:01:00:01' }
  assert.deepEqual(started({ parent: 'b', tap: 't1' }), { program: '/run/fc', cards: [inner] })
  assert.deepEqual(sshAddress(exampleRecord('a', { engine: 'firecracker', bridge })), {
    host: bridge.address,
    port: 22,
  })
  assert.deepEqual(sshAddress(exampleRecord('a', { engine: 'qemu', bridge })), { unix: '/run/nestvm/a/ssh' })
})

const request: StackRequest = {
  ...{ depth: 2, cpus: 1, memoryMiB: 512, nested: false, name: 'vm', on: '', onLevel: 0, accel: 'tcg' },
  ...{ arch: 'x86_64', accelReason: 'a test', availableMiB: 4096, engine: 'firecracker' },
}

/** What the innermost level's engine lacks first. */
function lackOf(changes: Partial<StackRequest>, more: Partial<Asked> = {}, gives: Capability[] = []): unknown {
  const asked = { remote: false, bridged: false, leads: false, ends: false, named: false, writes: false, ...more }
  const levels = planStack({ ...request, ...changes })
  const program = { path: '', data: Buffer.alloc(0), pathInGuest: '', gives }
  try {
    for (const [index, plan] of levels.entries()) checkEngine(plan, { ...asked, onHost: index === 0 }, program)
    return undefined
  } catch (error) {
    assert.ok(error instanceof Error && 'details' in error && 'code' in error && 'hint' in error)
    assert.equal(error.code, 'ENGINE_CANNOT')
    return { ...Object(error.details) }.capability
  }
}

test('Firecracker runs the innermost guest only; QEMU runs those around it', () => {
  assert.deepEqual(
    planStack({ ...request, depth: 3 }).map(({ engine }) => engine),
    ['qemu', 'qemu', 'firecracker'],
  )
})

test('what an engine cannot do is refused before anything starts', () => {
  assert.equal(lackOf({}), undefined)
  assert.equal(lackOf({ nested: true }), undefined)
  assert.equal(lackOf({ depth: 1 }), 'emulation')
  assert.equal(lackOf({ depth: 1, accel: 'kvm' }), 'user-network')
  const bridged = { depth: 1, accel: 'kvm' } as const
  assert.equal(lackOf(bridged, { bridged: true }), undefined)
  assert.equal(lackOf(bridged, { bridged: true, leads: true }), 'forwarding')
  assert.equal(lackOf({ ...bridged, nested: true }, { bridged: true }), 'forwarding')
  assert.equal(lackOf({}, { leads: true }), undefined)
  assert.equal(lackOf({ cpus: 33 }), 'many-cpus')
  assert.equal(lackOf({}, { ends: true }), 'detached-command')
  assert.equal(lackOf({ arch: 'arm64', nested: true }), 'arm64-hypervisor')
  assert.equal(lackOf({ arch: 'arm64', nested: true }, {}, ['arm64-hypervisor']), undefined)
  assert.equal(lackOf({ depth: 1, engine: 'qemu', cpus: 64, nested: true }, { ends: true }), undefined)
})

test('what Bochs cannot do at level 1 is refused, whatever is innermost; the levels in it run on QEMU or Firecracker', () => {
  const bochs = { outermostEngine: 'bochs', engine: undefined } as const
  assert.equal(lackOf({ ...bochs, nested: true }, { leads: true }), undefined)
  assert.deepEqual(
    planStack({ ...request, outermostEngine: 'bochs', depth: 3 }).map(({ engine }) => engine),
    ['bochs', 'qemu', 'firecracker'],
  )
  assert.equal(lackOf({ ...bochs, cpus: 2 }), 'several-cpus')
  assert.equal(lackOf({ ...bochs, memoryMiB: 2000 }), 'much-memory')
  assert.equal(lackOf({ ...bochs, depth: 1, memoryMiB: 2048 }), undefined)
  for (const [asked, lack] of [
    [{ ends: true }, 'detached-command'],
    [{ writes: true }, 'writable-disk'],
    [{ bridged: true }, 'bridged-network'],
    [{ remote: true }, 'remote-host'],
  ] as const) {
    assert.equal(lackOf(bochs, asked), lack)
  }
})
