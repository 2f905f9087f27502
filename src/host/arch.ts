import { NestvmError } from '../store/error.ts'

export const arches = ['x86_64', 'arm64'] as const
export type Arch = (typeof arches)[number]

/** The architecture of this process's host. Throws `UNSUPPORTED_ARCH`. */
export function hostArch(): Arch {
  if (process.arch === 'x64') return 'x86_64'
  if (process.arch === 'arm64') return 'arm64'
  throw new NestvmError('UNSUPPORTED_ARCH', `nestvm does not run on ${process.arch}`, {
    details: { arch: process.arch },
  })
}
