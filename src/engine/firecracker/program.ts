import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { neededLibraries } from '../../bundle/elf.ts'
import type { Arch } from '../../host/arch.ts'
import { NestvmError } from '../../store/error.ts'
import type { Capability } from '../capability.ts'

/** A Firecracker of the user's own, on this host. */
export interface FirecrackerProgram {
  path: string
  data: Buffer
  /** Its path in a guest hypervisor, to which it is copied. */
  pathInGuest: string
  /** What it can do and others cannot. */
  gives: readonly Capability[]
}

/** The ELF header's number of each architecture: EM_X86_64 and EM_AARCH64. */
const elfMachine: Record<Arch, number> = { x86_64: 62, arm64: 183 }

/** Looks at a file rather than run it: it may be for guests of another architecture. Throws `BAD_FIRECRACKER`. */
export async function readFirecracker(given: string, arch: Arch): Promise<FirecrackerProgram> {
  const path = resolve(given)
  const refuse = (why: string, cause?: unknown) =>
    new NestvmError('BAD_FIRECRACKER', `${path} cannot run guests: ${why}`, {
      hint: 'name a Firecracker as its project publishes it, by --firecracker or NESTVM_FIRECRACKER',
      details: { path, arch },
      cause,
    })
  const data = await readFile(path).catch((error: unknown) => {
    throw refuse(error instanceof Error ? error.message : String(error), error)
  })
  if (
    data.length < 64 ||
    data.readUInt32BE(0) !== 0x7f454c46 ||
    !data.includes('Firecracker') ||
    !data.includes('api-sock')
  )
    throw refuse('it is not Firecracker')
  if (data.readUInt16LE(18) !== elfMachine[arch]) throw refuse(`it is not for ${arch}`)
  const [library] = neededLibraries(data)
  if (library !== undefined) throw refuse(`it needs ${library}, and guest hypervisors have no libraries for it`)
  const digest = createHash('sha256').update(data).digest('hex').slice(0, 16)
  return {
    ...{ path, data, pathInGuest: `/run/nestvm/firecracker-${digest}` },
    gives: data.includes('enable-nv2') ? ['arm64-hypervisor'] : [],
  }
}
