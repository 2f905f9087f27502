import { kernelFiles } from '../bundle/guest/kernel.ts'

/** A kernel's files: what guests need, and what a host that boots it wants to have beside it. */
export const kernelFileNames = [...Object.values(kernelFiles), 'System.map']
