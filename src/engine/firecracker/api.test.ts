import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { test } from 'node:test'
import { FirecrackerApi } from './api.ts'
import { bootRequests } from './boot.ts'
import { ExampleFirecracker } from './example-server.ts'
import { exampleSpec } from './example-spec.ts'
import { loadFirecracker, resumeFirecracker, saveFirecracker } from './state.ts'

const never = new AbortController().signal
const apiOf = ({ socket }: ExampleFirecracker) => new FirecrackerApi(async () => connect(socket))
const saved = { state: '/s/state', memory: '/s/memory' }
const start = { method: 'PUT', path: '/actions', body: { action_type: 'InstanceStart' } } as const

test('a guest is told to boot by requests that are all granted', async () => {
  for (const given of [{}, { nested: true }, { arch: 'arm64' }, { arch: 'arm64', nested: true }] as const) {
    await using firecracker = await new ExampleFirecracker().listen()
    const api = apiOf(firecracker)
    const requests = bootRequests({ ...exampleSpec, ...given })
    for (const request of requests) await api.send(request, never)
    assert.equal(firecracker.granted.length, requests.length)
    assert.equal(firecracker.state, 'Running')
  }
})

test('a guest is saved while it stands still, goes on, and comes back in another Firecracker', async () => {
  await using first = await new ExampleFirecracker().listen()
  const api = apiOf(first)
  for (const request of bootRequests(exampleSpec)) await api.send(request, never)
  await saveFirecracker(api, saved, never)
  assert.equal(first.state, 'Paused')
  assert.deepEqual(first.granted.at(-1), {
    request: 'PUT /snapshot/create',
    body: { snapshot_type: 'Full', snapshot_path: '/s/state', mem_file_path: '/s/memory' },
  })
  await resumeFirecracker(api, never)
  assert.equal(first.state, 'Running')

  await using second = await new ExampleFirecracker().listen()
  const other = apiOf(second)
  await loadFirecracker(other, saved, 't2', never)
  assert.equal(second.state, 'Running')
  await assert.rejects(loadFirecracker(other, saved, 't2', never), { code: 'API_ERROR', message: /after starting/ })
})

test("what is refused is told in Firecracker's own words, and the session goes on", async () => {
  const refuse = { '/boot-source': 'The kernel file cannot be opened: No such file or directory' }
  await using firecracker = await new ExampleFirecracker({ refuse }).listen()
  const api = apiOf(firecracker)
  const [machine, ...rest] = bootRequests(exampleSpec)
  const boot = rest.find(({ path }) => path === '/boot-source')
  assert.ok(machine && boot)
  await assert.rejects(api.send(boot, never), {
    code: 'API_ERROR',
    message: 'Firecracker refused PUT /boot-source: The kernel file cannot be opened: No such file or directory',
  })
  await api.send(machine, never)
})

test('the server of these tests refuses what the description does not allow', async () => {
  await using firecracker = await new ExampleFirecracker().listen()
  const api = apiOf(firecracker)
  const wrong = [
    { method: 'PUT', path: '/machine', body: {} },
    { method: 'PATCH', path: '/actions', body: { action_type: 'InstanceStart' } },
    { method: 'PUT', path: '/machine-config', body: { vcpu_count: 1 } },
    { method: 'PUT', path: '/machine-config', body: { vcpu_count: 33, mem_size_mib: 1 } },
    { method: 'PUT', path: '/machine-config', body: { vcpu_count: 1, mem_size_mib: '1' } },
    { method: 'PUT', path: '/machine-config', body: { vcpu_count: 1, mem_size_mib: 1, more: true } },
    { method: 'PUT', path: '/drives/a', body: { drive_id: 'b', is_root_device: false } },
    { method: 'PUT', path: '/actions', body: { action_type: 'Start' } },
    { method: 'PATCH', path: '/vm', body: { state: 'Paused' } },
    { method: 'PUT', path: '/snapshot/create', body: { mem_file_path: 'a', snapshot_path: 'b' } },
    start,
  ] as const
  for (const request of wrong) await assert.rejects(api.send(request, never), { code: 'API_ERROR' }, request.path)
  assert.deepEqual(firecracker.granted, [])
})

test('when Firecracker goes away, whoever waits for an answer learns it', async () => {
  await using firecracker = await new ExampleFirecracker({ breakAt: '/actions' }).listen()
  const api = apiOf(firecracker)
  const [first] = bootRequests(exampleSpec)
  assert.ok(first)
  await api.send(first, never)
  await assert.rejects(api.send(start, never), { code: 'ENGINE_GONE' })
})

test('a request that is called off ends with the reason', async () => {
  await using firecracker = await new ExampleFirecracker().listen()
  const api = apiOf(firecracker)
  const reason = new Error('called off')
  await assert.rejects(api.send(start, AbortSignal.abort(reason)), reason)
})
