import type { GuestRecord } from './record.ts'

/** A record as tests need it: a detached level 1 guest that runs, but for what the test says. */
export function exampleRecord(id: string, fields: Partial<GuestRecord> = {}): GuestRecord {
  return {
    ...{ schema: 1, id, path: id, level: 1, host: 'host', base: id, stack: id },
    ...{ arch: 'x86_64', accel: 'tcg', accelReason: 'a test', engine: 'qemu', cpus: 1, memoryMiB: 512, nested: false },
    ...{ createdAt: '2025-01-01T00:00:00.000Z', phase: 'running', detached: true },
    ...{ socketDir: `/run/nestvm/${id}`, engineDir: `/run/nestvm/${id}`, sshSocket: `/run/nestvm/${id}/ssh` },
    ...{
      address: '10.1.0.1',
      mac: '52:54:00:01:00:01',
      hostKey: '',
      disks: [],
      network: 'none',
      ports: [],
      volumes: [],
    },
    ...fields,
  }
}

/** A path of guests, each in the one before: `outer`, `outer/a`, `outer/a/b`; the names are their ids too. */
export function exampleStack(...names: string[]): GuestRecord[] {
  const [base = ''] = names
  return names.map((id, index) => {
    const path = names.slice(0, index + 1).join('/')
    return exampleRecord(id, { path, level: index + 1, parent: names[index - 1], base, stack: base })
  })
}

/** A process that is not there: its number is above the kernel's PID_MAX_LIMIT. */
export const deadProcess = { pid: 4_194_305, startTime: 1, boot: 'none' }
