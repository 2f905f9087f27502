import type { FirecrackerApi } from './api.ts'

/** The two files of a saved guest, on the machine that Firecracker runs on. */
export interface SavedFiles {
  /** Its devices and processors. */
  state: string
  memory: string
}

/**
 * Stops a guest and writes all of it to two files: its memory in whole, and its state. It stays stopped until
 * `resumeFirecracker`. Throws what `send` throws.
 */
export async function saveFirecracker(
  api: FirecrackerApi,
  { state, memory }: SavedFiles,
  signal: AbortSignal,
): Promise<void> {
  await api.send({ method: 'PATCH', path: '/vm', body: { state: 'Paused' } }, signal)
  const body = { snapshot_type: 'Full', snapshot_path: state, mem_file_path: memory }
  await api.send({ method: 'PUT', path: '/snapshot/create', body }, signal)
}

export async function resumeFirecracker(api: FirecrackerApi, signal: AbortSignal): Promise<void> {
  await api.send({ method: 'PATCH', path: '/vm', body: { state: 'Resumed' } }, signal)
}

/**
 * Loads a guest into a Firecracker that was told nothing yet, on a tap device of its own, and lets it run. What the
 * guest writes stays with this Firecracker; the file of its memory must stay as it is while it runs. Its disks and
 * sockets must be where they were. Firecracker 1.12 and newer know another tap device than that of before.
 */
export async function loadFirecracker(
  api: FirecrackerApi,
  { state, memory }: SavedFiles,
  tap: string,
  signal: AbortSignal,
): Promise<void> {
  const body = {
    snapshot_path: state,
    mem_backend: { backend_type: 'File', backend_path: memory },
    network_overrides: [{ iface_id: 'eth0', host_dev_name: tap }],
    resume_vm: true,
  }
  await api.send({ method: 'PUT', path: '/snapshot/load', body }, signal)
}
