import assert from 'node:assert/strict'
import { test } from 'node:test'
import { NestvmError } from '../store/error.ts'
import { reasonFor } from './death.ts'

const death = new NestvmError('GUEST_DIED', 'outer: its engine ended')
const deaths = () => [new Promise<never>(() => {}), Promise.reject(death)]

test('a connection that breaks is explained by the death of a guest', async () => {
  assert.equal(await reasonFor(new NestvmError('MACHINE_LOST', 'the connection was lost'), deaths()), death)
})

test('other failures stand as they are', async () => {
  const refused = new NestvmError('ENGINE_FAILED', 'QEMU refused an option')
  const [, dead] = deaths()
  assert.equal(await reasonFor(refused, [dead ?? Promise.reject(death)]), refused)
  await assert.rejects(async () => dead, death)
})
