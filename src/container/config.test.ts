import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as z from 'zod'
import { ociConfig } from './config.ts'
import { ociProcess } from './process.ts'

const mount = z.looseObject({ destination: z.string(), source: z.string(), options: z.array(z.string()) })
const shape = z.object({
  mounts: z.array(mount),
  linux: z.object({
    namespaces: z.array(z.object({ type: z.string() })),
    devices: z.array(z.object({ path: z.string() })),
    maskedPaths: z.array(z.string()),
    resources: z.object({ devices: z.array(z.object({ allow: z.boolean() })) }),
  }),
})

function config(given: { privileged?: boolean; nested?: boolean } = {}) {
  const { privileged = false, nested = false } = given
  const image = { config: { env: [], workdir: '/', user: '' }, passwd: '', group: '' }
  const process = ociProcess(['x'], { env: {} }, { ...image, hostname: 'h', privileged })
  const binds = [{ source: '/run/v', destination: '/data', readOnly: true }]
  return shape.parse(ociConfig({ process, hostname: 'h', privileged, nested, binds }))
}

test('a container shares the network of its guest and nothing else', () => {
  const types = config().linux.namespaces.map(({ type }) => type)
  assert.deepEqual(types, ['pid', 'ipc', 'uts', 'mount', 'cgroup'])
})

test('volumes come last, so that nothing covers them', () => {
  assert.deepEqual(config().mounts.at(-1), {
    destination: '/data',
    type: 'bind',
    source: '/run/v',
    options: ['rbind', 'ro'],
  })
})

test('KVM is in a container only where it may start guests; a privileged one has all that its guest has', () => {
  assert.deepEqual(config().linux.devices, [])
  assert.ok(config({ nested: true }).linux.devices.some(({ path }) => path === '/dev/kvm'))
  const privileged = config({ privileged: true })
  assert.equal(privileged.mounts.find(({ destination }) => destination === '/dev')?.source, '/dev')
  assert.deepEqual([privileged.linux.maskedPaths, privileged.linux.resources.devices[0]?.allow], [[], true])
})
