"""What an application does that its users or their programs would notice if the proxy in front of it did otherwise.

Each request is noted as Django sees it, one line of JSON in the file that LAB_SEEN names, before it is answered.
"""

import hashlib
import json
import os
import time

from django.core.exceptions import BadRequest, PermissionDenied
from django.http import Http404, HttpResponse, JsonResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.urls import path, re_path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import condition, require_GET


def digest(data):
    return f"{len(data)} bytes {hashlib.sha256(data).hexdigest()[:16]}"


def host_of(request):
    try:
        return request.get_host()
    except Exception as error:  # what Django says of it is what is noted
        return type(error).__name__


class Recorder:
    """Outermost, so that it also sees what Django's own middleware refuses."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        meta = request.META
        body = request.body
        seen = {
            "server": int(meta["SERVER_PORT"]),
            "version": meta["SERVER_PROTOCOL"],
            "method": request.method,
            # gunicorn tells the target as it came, the development server only what it made of it.
            "target": meta.get("RAW_URI"),
            "path": request.path,
            "query": meta.get("QUERY_STRING", ""),
            "scheme": request.scheme,
            "host": host_of(request),
            "peer": meta["REMOTE_ADDR"],
            "body": digest(body),
            "cookies": request.COOKIES,
            "form": {name: request.POST.getlist(name) for name in request.POST},
            "files": {
                name: [file.name, file.content_type, digest(file.read())] for name, file in request.FILES.items()
            },
            "header": {
                name.removeprefix("HTTP_").replace("_", "-").lower(): value
                for name, value in meta.items()
                if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH")
            },
        }
        for file in request.FILES.values():
            file.seek(0)
        line = json.dumps(seen) + "\n"
        notes = os.open(os.environ["LAB_SEEN"], os.O_WRONLY | os.O_APPEND)
        os.write(notes, line.encode())
        os.close(notes)
        return self.get_response(request)


@csrf_exempt
def echo(request):
    return JsonResponse({"method": request.method, "path": request.path, "body": digest(request.body)})


def plain(request):
    return HttpResponse("plain\n", content_type="text/plain")


def secure(request):
    return HttpResponse(f"{request.scheme} {request.is_secure()}\n", content_type="text/plain")


def url(request):
    return HttpResponse(request.build_absolute_uri("/elsewhere") + "\n", content_type="text/plain")


def moved(request, status, to):
    response = HttpResponse(status=int(status))
    response["Location"] = "/" + to
    return response


def absolutely(request):
    response = HttpResponse(status=302)
    response["Location"] = request.build_absolute_uri("/plain")
    return response


def cookies(request):
    response = HttpResponse("cookies\n", content_type="text/plain")
    response.set_cookie("a", "1", max_age=3600)
    response.set_cookie("b", "two words", httponly=True, samesite="Lax")
    response.set_cookie("c", "3", secure=request.is_secure(), path="/plain", domain="krystal.technology")
    response.delete_cookie("old")
    return response


def status(request, code):
    return HttpResponse(f"status {code}\n", status=int(code), content_type="text/plain")


def reason(request):
    return HttpResponse("odd\n", status=299, reason="Quite Something", content_type="text/plain")


def missing(request):
    raise Http404


def denied(request):
    raise PermissionDenied


def bad(request):
    raise BadRequest


def breaks(request):
    raise RuntimeError("as it should")


def stream(request):
    return StreamingHttpResponse((f"part {n}\n" for n in range(20)), content_type="text/plain")


def slow_stream(request):
    def parts():
        for n in range(3):
            yield f"part {n}\n"
            time.sleep(0.1)

    return StreamingHttpResponse(parts(), content_type="text/event-stream")


def broken_stream(request):
    def parts():
        yield "part 0\n"
        raise RuntimeError("as it should")

    return StreamingHttpResponse(parts(), content_type="text/plain")


def short(request):
    response = HttpResponse("only this\n", content_type="text/plain")
    response["Content-Length"] = "100"
    return response


def big(request, size):
    line = b"0123456789abcde\n"
    return HttpResponse(line * (int(size) // len(line)), content_type="application/octet-stream")


def big_stream(request, size):
    part = b"0123456789abcde\n" * 1024
    return StreamingHttpResponse((part for _ in range(int(size) // len(part))), content_type="application/octet-stream")


@gzip_page
def zipped(request):
    return HttpResponse("the same again\n" * 500, content_type="text/plain")


@condition(etag_func=lambda request: '"of-the-lab"')
def tagged(request):
    return HttpResponse("tagged\n", content_type="text/plain")


def modified(request):
    response = HttpResponse("modified\n", content_type="text/plain")
    response["Last-Modified"] = "Mon, 01 Jan 2024 00:00:00 GMT"
    if request.META.get("HTTP_IF_MODIFIED_SINCE") == response["Last-Modified"]:
        response = HttpResponse(status=304)
    return response


def ranges(request):
    data = bytes(range(ord("a"), ord("z") + 1)) * 10
    wanted = request.META.get("HTTP_RANGE", "")
    if not wanted.startswith("bytes="):
        response = HttpResponse(data, content_type="application/octet-stream")
        response["Accept-Ranges"] = "bytes"
        return response
    first, last = wanted.removeprefix("bytes=").split("-", 1)
    start = int(first) if first else len(data) - int(last)
    end = min(int(last) if first and last else len(data) - 1, len(data) - 1)
    if start >= len(data):
        response = HttpResponse(status=416)
        response["Content-Range"] = f"bytes */{len(data)}"
        return response
    response = HttpResponse(data[start : end + 1], status=206, content_type="application/octet-stream")
    response["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
    return response


def download(request):
    response = HttpResponse(b"%PDF-1.4\n", content_type="application/pdf")
    response["Content-Disposition"] = 'attachment; filename="invoice 1.pdf"'
    return response


def form(request):
    if request.method == "POST":
        return HttpResponse("saved\n", content_type="text/plain")
    get_token(request)
    return HttpResponse("<form>\n")


@csrf_exempt
def login(request):
    request.session["user"] = request.POST.get("user")
    response = HttpResponse(status=302)
    response["Location"] = "/who"
    return response


def who(request):
    return HttpResponse(f"{request.session.get('user')}\n", content_type="text/plain")


def slow(request):
    time.sleep(0.7)
    return HttpResponse("slow\n", content_type="text/plain")


def own_headers(request):
    response = HttpResponse("headers\n", content_type="text/plain")
    response["X-Frame-Options"] = "SAMEORIGIN"
    response["Content-Security-Policy"] = "default-src 'self'"
    response["Strict-Transport-Security"] = "max-age=60"
    response["Cache-Control"] = "private, max-age=10"
    response["Link"] = "</style.css>; rel=preload"
    response["X-Long"] = "v" * 3000
    return response


def for_the_proxy(request):
    response = HttpResponse("to the proxy\n", content_type="text/plain")
    response["X-Accel-Buffering"] = "no"
    response["X-Accel-Expires"] = "0"
    response["X-Sendfile"] = "/nowhere"
    return response


@require_GET
def only_get(request):
    return HttpResponse("got\n", content_type="text/plain")


urlpatterns = [
    path("echo", echo),
    path("echo/<path:rest>", lambda request, rest: echo(request)),
    path("plain", plain),
    path("secure", secure),
    path("url", url),
    re_path(r"^moved/(\d+)/(.*)$", moved),
    path("absolutely", absolutely),
    path("cookies", cookies),
    path("status/<int:code>", status),
    path("reason", reason),
    path("missing", missing),
    path("denied", denied),
    path("bad", bad),
    path("breaks", breaks),
    path("stream", stream),
    path("slow-stream", slow_stream),
    path("broken-stream", broken_stream),
    path("short", short),
    path("big/<int:size>", big),
    path("big-stream/<int:size>", big_stream),
    path("zipped", zipped),
    path("tagged", tagged),
    path("modified", modified),
    path("ranges", ranges),
    path("download", download),
    path("form", form),
    path("login", login),
    path("who", who),
    path("slow", slow),
    path("own-headers", own_headers),
    path("for-the-proxy", for_the_proxy),
    path("only-get", only_get),
    path("", plain),
]
